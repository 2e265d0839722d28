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

use std::{
    ffi::OsString,
    io::{self, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Message, Package, PackageId};
use clap::Args;

use self::boot::Boot;
use crate::{
    failures::Failures,
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

/// The tests that are skipped elsewhere, because they need a kernel that has what ours may lack, have this
/// in their names.
const TESTS: &str = "_with_esp";
/// Where they are: the package, its target, and the time for all of them on a machine that is busy with
/// others, too.
const DATAPLANE: [(&str, &str, Duration); 2] = [
    ("overlay-dataplane", "overlay_dataplane", Duration::from_mins(10)),
    ("overlay", "dataplane", Duration::from_mins(15)),
];
const DAEMONS: (&str, &str, Duration) = ("overlay", "lab", Duration::from_mins(90));
/// The kernel rewrites its own code as hooks come and go, which QEMU lets another processor see halfway.
const TEST_CPUS: usize = 1;
/// Debian's package that brings the newest kernel of a series.
const KERNEL: &str = "linux-image-6.12-amd64";

/// Which of the tests that need another kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the dataplanes.
    Dataplane,
    /// Those of daemons too, each of which takes a minute or two: every instruction is translated.
    All,
}

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
    setup::provide(PACKAGES.iter())?;
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
    .run(&mut io::stdout())?;
    std::process::exit(status);
}

/// Runs the tests that need another kernel. Without root there is no virtual machine: that is said, and
/// is an error in CI.
pub(crate) fn test(workspace: &Workspace, scope: Scope) -> Result<()> {
    if !workspace::is_root() {
        ensure!(!workspace::in_ci(), "the virtual machine needs root");
        println!("SKIPPED: the virtual machine needs root");
        return Ok(());
    }
    setup::provide(PACKAGES.iter())?;
    let kernel = kernel::provide(&workspace.target().join("vm"), KERNEL)?;
    let daemons = (scope == Scope::All).then_some(DAEMONS);
    let programs = Programs::build(workspace)?;
    let members = workspace.members();
    let mut complaints = Vec::new();
    for (package, target, limit) in DATAPLANE.into_iter().chain(daemons) {
        let member = members.iter().find(|p| *p.name == package).context("no such package")?;
        let program = programs.find(member, target)?;
        let listed = workspace.command(program).args([TESTS, "--list"]).output()?;
        ensure!(
            String::from_utf8_lossy(&listed.stdout).contains(TESTS),
            "no test of {package}, {target} has {TESTS:?} in its name"
        );
        let mut failures = Failures::new(io::stdout());
        let status = Boot {
            kernel: &kernel,
            command: &[program.into(), TESTS.into(), "--test-threads=1".into()],
            variables: &[("CI", "true"), ("ESP", "required")],
            limit,
            memory_mib: 4096,
            cpus: TEST_CPUS,
            kvm: false,
        }
        .run(&mut failures)?;
        if status != 0 {
            complaints.push(format!("{package}, {target}: exit status {status}"));
            complaints.extend(failures.describe());
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// The tests that there are: the package and the target of each, and its program.
struct Programs(Vec<(PackageId, String, PathBuf)>);

impl Programs {
    /// Builds them as `cargo test --workspace` does.
    fn build(workspace: &Workspace) -> Result<Self> {
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--locked", "--workspace", "--no-run", "--message-format=json"]);
        let mut child = cargo.stdout(Stdio::piped()).spawn().context("could not start cargo")?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut programs = Vec::new();
        for message in Message::parse_stream(output) {
            let Message::CompilerArtifact(artifact) = message? else { continue };
            let program = artifact.executable.filter(|_| artifact.profile.test);
            programs.extend(program.map(|program| {
                (artifact.package_id, artifact.target.name, program.into_std_path_buf())
            }));
        }
        ensure!(child.wait()?.success(), "the tests cannot be built");
        Ok(Self(programs))
    }

    /// The tests of this target of this package.
    fn find(&self, package: &Package, target: &str) -> Result<&Path> {
        let mut all = self.0.iter();
        let found = all.find(|(id, name, _)| *id == package.id && name == target);
        let (.., program) =
            found.with_context(|| format!("{} has no tests {target}", package.name))?;
        Ok(program)
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}
