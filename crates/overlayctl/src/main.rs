//! Command line of an overlay node: Docker's verbs and flags, spoken to the daemon's unix socket.
//!
//! Owns the grammar of the command line, the tables and the JSON documents. Decides nothing about
//! the cluster: what a flag means is said by `overlay-types`, what a name refers to by the node.
//!
//! ```text
//! arguments ──cli──► command ──request──► session ──gRPC──► overlayd
//!                       │ refused early       │
//!                       ▼                     ▼ message
//!              failure, exit code    view ──output──► table | JSON on stdout
//! ```
//!
//! - [`cli`]: the verbs and the flags of all of them
//! - [`command`]: per noun: flags → request → answer
//! - [`flag`]: flags that several verbs share
//! - [`filter`]: `--filter` of `ls`
//! - [`session`]: the node that is asked, and its clients
//! - [`view`]: what is shown, the documented JSON
//! - [`output`]: tables and documents out of views
//! - [`failure`]: what goes wrong, and exit codes
//! - [`duration`], [`timestamp`]: time as people write and read it

mod cli;
mod command;
mod duration;
mod failure;
mod filter;
mod flag;
mod output;
mod secret;
mod session;
mod timestamp;
mod view;

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::{cli::Cli, failure::Failure};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let failures = match Cli::parse().run().await {
        Ok(report) => {
            let mut failures = report.failures;
            failures.extend(write(&report.output).err());
            failures
        }
        Err(failure) => vec![failure],
    };
    for failure in &failures {
        complain(failure);
    }
    failures.first().map_or(ExitCode::SUCCESS, Failure::exit_code)
}

/// Results, and nothing else, go to stdout. A reader that has seen enough is no failure.
fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Io(error)),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "a command line tells a person what went wrong")]
fn complain(failure: &Failure) {
    eprintln!("{}", failure.describe());
}
