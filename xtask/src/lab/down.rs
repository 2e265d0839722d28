//! `lab down`: ends what `up` started and removes what it made, and nothing else.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use overlay_testkit::{hosts::end_holder, lab::NAMED};

use super::{
    process::Process,
    state::{Made, State, remove_directory},
};
use crate::workspace;

/// Removes the lab, if there is one.
pub(super) fn run(state: &State) -> Result<()> {
    if let Some(shell) = state.shell() {
        // Its namespaces, and all that is in them, end with it.
        shell.kill()?;
        println!("lab: ended the shell that had it");
        return state.forget_shell();
    }
    let _lock = state.lock()?;
    if state.made()?.is_none() {
        println!("lab: there is none");
        return state.forget_shell();
    }
    remove(state)?;
    println!("lab: nothing is left of it");
    Ok(())
}

/// What cannot be removed does not keep the rest; the folder stays then, for another try.
pub(super) fn remove(state: &State) -> Result<()> {
    let mut failed = Vec::new();
    let made = state.made()?.unwrap_or_default();
    let nodes = made.iter().find_map(|made| match made {
        Made::Nodes(nodes) => Some(*nodes),
        _ => None,
    });
    for number in 1..=nodes.unwrap_or(0) {
        let daemon = Process::read(&state.pid_file(number));
        failed.extend(daemon.and_then(|daemon| daemon.end().err()));
        end_holder(&state.folder().join(format!("node{number}")));
    }
    for made in made.iter().rev() {
        let removed = match made {
            Made::Nodes(_) => Ok(()),
            Made::Namespace(name) => remove_namespace(name),
            Made::Directory(path) => remove_made_directory(path),
        };
        failed.extend(removed.err());
    }
    if failed.is_empty() {
        return state.end();
    }
    let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    bail!("{}", failed.join("; "))
}

fn remove_namespace(name: &str) -> Result<()> {
    let path = Path::new(NAMED).join(name);
    let Ok(namespace) = fs::metadata(&path) else { return Ok(()) };
    for guest in guests(&namespace) {
        println!("lab: {name} stays until what you started in it ends: {guest}");
    }
    workspace::run_quietly(Command::new("ip").args(["netns", "delete", name]))
}

/// Others' processes in a namespace.
fn guests(namespace: &fs::Metadata) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = processes.filter(|process| {
        let own = fs::metadata(process.path().join("ns/net"));
        own.is_ok_and(|own| (own.dev(), own.ino()) == (namespace.dev(), namespace.ino()))
    });
    let describe = |process: fs::DirEntry| {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        format!("{} ({})", process.file_name().display(), name.trim())
    };
    inside.map(describe).collect()
}

/// `ip netns` mounts `/run/netns` on itself.
fn remove_made_directory(path: &Path) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(path) else { return Ok(()) };
    if entries.next().is_some() {
        return Ok(());
    }
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    remove_directory(path).context("a directory that `up` has made")
}
