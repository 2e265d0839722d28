//! `cargo xtask vm -- CMD`: a command as root under Debian's kernel, in QEMU, for what the kernel of
//! this machine may lack: ESP, IPVS, netem, WireGuard.
//!
//! ```text
//!  apt ──► kernel ──► target/vm/PACKAGE: vmlinux, modules, initramfs   made once
//!                           │
//!  command ──► boot ──► QEMU ──► init ──► stage2 ──► command
//!                 ▲                        │ output: a virtio port
//!                 └── exit status ◄────────┘ in a folder that both see
//! ```
//!
//! The guest's files are the host's, read-only, below a layer in memory: what is built here runs
//! there, and what is written there is gone afterwards.

mod boot;
mod kernel;

use std::{ffi::OsString, io::BufReader, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;
use clap::Args;

use self::boot::Boot;
use crate::{
    setup::{self, SystemPackage},
    workspace::{self, Workspace},
};

/// What only this chore needs.
const PACKAGES: [SystemPackage; 6] = [
    SystemPackage {
        name: "qemu-system-x86",
        program: "qemu-system-x86_64",
        needed_by: "the virtual machine",
    },
    SystemPackage { name: "busybox-static", program: "busybox", needed_by: "its first process" },
    SystemPackage { name: "cpio", program: "cpio", needed_by: "its first file system" },
    SystemPackage { name: "kmod", program: "modprobe", needed_by: "its kernel modules" },
    SystemPackage { name: "xz-utils", program: "xz", needed_by: "unpacking its kernel" },
    SystemPackage { name: "zstd", program: "zstd", needed_by: "unpacking its kernel" },
];

/// Tests that are skipped elsewhere, because they need a kernel that has what ours may lack: the
/// package and the target that they are in, and parts of their names. Daemons take their time there: of
/// their tests those that prove the most.
const TESTS: [(&str, &str, &[&str]); 3] = [
    ("overlay-dataplane", "overlay_dataplane", &["_with_esp"]),
    ("overlay", "dataplane", &["_with_esp"]),
    (
        "overlay",
        "lab",
        &[
            "encrypted_networks_over_ipv4_with_esp::case_1_kernel",
            "nothing_leaves_or_enters_in_clear_with_esp::case_1_kernel",
            "every_number_arrives_once_with_esp::case_1_kernel",
            "loses_its_keys_at_once_with_esp",
        ],
    ),
];
/// Time for each of them, on a machine that is busy with others, too.
const TEST_LIMIT: Duration = Duration::from_mins(15);
/// The kernel rewrites its own code as hooks come and go, which QEMU lets another processor see halfway.
const TEST_CPUS: usize = 1;
/// Debian's package that brings the newest kernel of a series.
const KERNEL: &str = "linux-image-6.12-amd64";

/// A command and the machine for it.
#[derive(Args)]
pub(crate) struct VmArgs {
    /// Time that booting and the command may take together; then the exit status is 124
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Memory of the machine, in MiB. What the command writes to files takes some of it
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory: u32,
    /// Processors of the machine; those of this one, and four at most, unless told
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// A variable for the command, `NAME=VALUE`; can be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run on /dev/kvm instead of translating each instruction. Pays only where that is hardware
    #[arg(long)]
    kvm: bool,
    /// Debian's package of the kernel
    #[arg(long, value_name = "PACKAGE", default_value = KERNEL)]
    kernel: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command and ends this process with its status.
pub(crate) fn run(workspace: &Workspace, args: &VmArgs) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the virtual machine is an x86-64 one; this is not");
    if !workspace::is_root() {
        bail!("the virtual machine serves the files of root: run this as root");
    }
    let variables = args.env.iter().map(|text| {
        text.split_once('=').with_context(|| format!("--env {text:?} is not NAME=VALUE"))
    });
    let variables = variables.collect::<Result<Vec<_>>>()?;
    setup::provide(&PACKAGES)?;
    let kernel = kernel::provide(&workspace.target().join("vm"), &args.kernel)?;
    let status = Boot {
        kernel: &kernel,
        command: &args.command,
        variables: &variables,
        limit: Duration::from_secs(args.limit),
        memory_mib: args.memory,
        cpus: args.cpus.unwrap_or_else(cpus),
        kvm: args.kvm,
    }
    .run()?;
    std::process::exit(status);
}

/// Runs the tests that need another kernel. Without root there is no virtual machine: that is said, and
/// is an error in CI.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    if !workspace::is_root() {
        ensure!(!workspace::in_ci(), "the virtual machine needs root");
        println!("SKIPPED: the virtual machine needs root");
        return Ok(());
    }
    setup::provide(&PACKAGES)?;
    let kernel = kernel::provide(&workspace.target().join("vm"), KERNEL)?;
    for (executable, filters) in executables(workspace)? {
        let listed = workspace.command(&executable).args(filters).arg("--list").output()?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        if let Some(filter) = filters.iter().find(|filter| !listed.contains(**filter)) {
            bail!("no test of {} has {filter:?} in its name", executable.display());
        }
        let filters = filters.iter().map(OsString::from);
        let command: Vec<OsString> = core::iter::once(executable.into())
            .chain(filters)
            .chain(["--test-threads=1".into()])
            .collect();
        let status = Boot {
            kernel: &kernel,
            command: &command,
            variables: &[("CI", "true"), ("ESP", "required")],
            limit: TEST_LIMIT,
            memory_mib: 4096,
            cpus: TEST_CPUS,
            kvm: false,
        }
        .run()?;
        ensure!(status == 0, "tests in the virtual machine: exit status {status}");
    }
    Ok(())
}

/// The executables of [`TESTS`], which are built if they are not, with their filters.
fn executables(workspace: &Workspace) -> Result<Vec<(PathBuf, &'static [&'static str])>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--locked", "--workspace", "--no-run", "--message-format=json"]);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("could not start cargo")?;
    let output = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut found = Vec::new();
    for message in Message::parse_stream(output) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        let wanted = TESTS.iter().find(|(package, target, _)| {
            artifact.target.name == *target
                && workspace
                    .members()
                    .iter()
                    .any(|p| p.id == artifact.package_id && p.name == *package)
        });
        let executable = artifact.executable.filter(|_| artifact.profile.test);
        found.extend(
            wanted
                .zip(executable)
                .map(|((.., filters), path)| (path.into_std_path_buf(), *filters)),
        );
    }
    ensure!(child.wait()?.success(), "the tests cannot be built");
    ensure!(found.len() == TESTS.len(), "of {TESTS:?} there are {found:?}");
    Ok(found)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}
