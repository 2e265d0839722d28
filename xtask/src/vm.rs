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

use std::{ffi::OsString, time::Duration};

use anyhow::{Context, Result, bail, ensure};
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
    #[arg(long, value_name = "PACKAGE", default_value = "linux-image-6.12-amd64")]
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
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let status = Boot {
        kernel: &kernel,
        command: &args.command,
        variables: &variables,
        limit: Duration::from_secs(args.limit),
        memory_mib: args.memory,
        cpus: args.cpus.unwrap_or(cpus),
        kvm: args.kvm,
    }
    .run()?;
    std::process::exit(status);
}
