//! `lab up`: hosts, daemons, one cluster, one network, a container on each host.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use overlay_testkit::{
    hosts::{self, Host, Programs},
    lab::{self, NAMED, Namespace},
};

use super::{
    down,
    process::Process,
    state::{Made, State},
};

/// The namespace that the hosts' wire is in.
pub(super) const WIRE: &str = "lab-wire";
/// The network that all containers are on.
pub(super) const NETWORK: &str = "lab";

/// The namespace of a host.
pub(super) fn node(number: u8) -> String {
    format!("lab-node{number}")
}

/// The namespace of the container on a host.
pub(super) fn container(number: u8) -> String {
    format!("lab-c{number}")
}

/// Starts a lab, or in one that is up the daemons that have ended.
pub(super) fn run(state: &State, nodes: u8, programs: &Programs) -> Result<()> {
    let _lock = state.lock()?;
    if let Some(made) = state.made()? {
        return repair(state, &made, nodes, programs);
    }
    state.refuse_when_up()?;
    lab::available()?;
    println!("lab: {nodes} hosts, a daemon on each, one cluster");
    make(state, nodes, programs).map_err(|error| match down::remove(state) {
        Ok(()) => error.context("there is no lab: what was made is removed again"),
        Err(left) => error.context(format!("{left:#}; `cargo xtask lab down` tries again")),
    })
}

fn make(state: &State, nodes: u8, programs: &Programs) -> Result<()> {
    state.begin(nodes)?;
    if !fs::exists(NAMED)? {
        state.write_down(&Made::Directory(NAMED.into()))?;
    }
    let wire = namespace(state, WIRE)?;
    hosts::lay_wire(&wire)?;
    let mut ready = Vec::new();
    for number in 1..=nodes {
        let netns = namespace(state, &node(number))?;
        let host = Host::new(number, netns, &wire, &state.folder(), programs.clone())?;
        start(state, &host)?;
        ready.push(host);
    }
    hosts::form(&ready.iter().collect::<Vec<_>>(), &[])?;
    ready[0].ctl(&["network", "create", "--attachable", NETWORK])?;
    for host in &ready {
        let name = container(host.number);
        namespace(state, &name)?;
        let netns = Path::new(NAMED).join(&name);
        host.attach(NETWORK, &format!("c{}", host.number), &netns, &[])?;
    }
    Ok(())
}

/// A new namespace that outlives this process.
fn namespace(state: &State, name: &str) -> Result<Namespace> {
    let path = Path::new(NAMED).join(name);
    ensure!(!fs::exists(&path)?, "{} is there already, and not of this lab", path.display());
    state.write_down(&Made::Namespace(name.to_owned()))?;
    Namespace::named(name)
}

fn start(state: &State, host: &Host) -> Result<()> {
    let mut daemon = host.start()?;
    let kept = Process::of(daemon.id()).and_then(|p| p.keep(&state.pid_file(host.number)));
    if let Err(error) = kept {
        // `down` would not know of it. It may have ended by itself.
        let _ = daemon.kill();
        let _ = daemon.wait();
        return Err(error.context(host.log()));
    }
    host.until_answers(&mut daemon)
}

fn repair(state: &State, made: &[Made], nodes: u8, programs: &Programs) -> Result<()> {
    if !made.contains(&Made::Nodes(nodes)) {
        bail!("a lab of another size is up already; `cargo xtask lab down` ends it");
    }
    let mut started = Vec::new();
    for number in 1..=nodes {
        if Process::read(&state.pid_file(number)).is_some_and(Process::runs) {
            continue;
        }
        let netns = Namespace::open(&Path::new(NAMED).join(node(number)));
        let netns = netns.context("the lab is damaged; `cargo xtask lab down` ends it")?;
        start(state, &Host::found(number, netns, &state.folder(), programs.clone())?)?;
        started.push(format!("node{number}"));
    }
    match started.as_slice() {
        [] => println!("lab: it is up already"),
        started => println!("lab: started {} again", started.join(", ")),
    }
    Ok(())
}
