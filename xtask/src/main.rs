//! Chores of this workspace. `cargo xtask help` lists them; CI runs `cargo xtask test`.
//!
//! ```text
//!  test ──> setup     apt-get what is missing, where that is allowed
//!       ──> verify    reads the tree, changes nothing
//!       ──> cargo test, cargo check of the fuzz targets, then every example
//!       ──> vm        the dataplanes' tests under a kernel that has ESP
//!
//!  fix · bench · sim · lab · vm · vm-tests  stand alone
//! ```
#![expect(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

mod bench;
mod failures;
mod lab;
mod report;
mod setup;
mod sim;
mod test;
mod verify;
mod vm;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{vm::Scope, workspace::Workspace};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "Chores of this workspace")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install the system packages that tests need (apt, as root), or say how to
    Setup,
    /// Check the tree without changing it: format, lints, docs, crate edges, sizes, licenses
    Verify,
    /// Format, and apply what clippy can fix by itself
    Fix,
    /// All there is: setup, verify, every test, the fuzz targets (checked, not run), every example
    Test,
    /// Run benches in release and print one table. A missed target is reported, not an error,
    /// because the machine decides it
    Bench {
        /// Benches to run; all when none is named
        names: Vec<String>,
        /// Write the results, tab separated, to this file too
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Simulate whole clusters under faults, one for each seed; a seed that fails is printed with the
    /// command that replays it
    Sim {
        /// How many seeds
        #[arg(long, value_name = "N", default_value_t = 300)]
        seeds: u64,
        /// The first of them
        #[arg(long, value_name = "S", default_value_t = 1)]
        first_seed: u64,
        /// Optimised: seven times as many seeds in the same time, once it is built
        #[arg(long)]
        release: bool,
    },
    /// A cluster on this machine, a network namespace for each host (`up`, `down`), or a command as root
    /// of a fresh one: `cargo xtask lab -- ip link`
    Lab(lab::Lab),
    /// Run a command as root under Debian's kernel in QEMU, which has what this one may lack (ESP,
    /// IPVS, netem): `cargo xtask vm -- ip xfrm state`. Sees the files of this machine, keeps nothing
    Vm(vm::VmArgs),
    /// All tests that need that kernel, those of real daemons too, which `test` leaves out: half an hour
    VmTests,
}

/// An error is a line or a few for people, without a trace of our own calls.
#[expect(clippy::print_stderr, reason = "a command-line tool reports errors on stderr")]
fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Setup => setup::run(),
        Chore::Verify => verify::run(&Workspace::load()?),
        Chore::Fix => fix(&Workspace::load()?),
        Chore::Test => test::run(&Workspace::load()?),
        Chore::Bench { names, save } => bench::run(&Workspace::load()?, &names, save.as_deref()),
        Chore::Sim { seeds, first_seed, release } => {
            sim::run(&Workspace::load()?, seeds, first_seed, release)
        }
        Chore::Lab(lab) => lab::run(&lab),
        Chore::Vm(args) => vm::run(&Workspace::load()?, &args),
        Chore::VmTests => vm::test(&Workspace::load()?, Scope::All),
    }
}

fn fix(workspace: &Workspace) -> Result<()> {
    // Clippy first: its rewrites are not formatted.
    workspace::run(
        workspace
            .cargo()
            .args(["clippy", "--workspace", "--all-targets", "--fix"])
            .args(["--allow-dirty", "--allow-staged"]),
    )?;
    workspace::run(workspace.cargo().args(["fmt", "--all"]))
}
