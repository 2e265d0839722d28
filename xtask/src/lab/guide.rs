//! What to try in a lab that is up.

use core::time::Duration;
use std::path::Path;

use anyhow::{Context, Result};
use overlay_testkit::{
    hosts::{self, Programs, WIRE as BRIDGE},
    lab::{NAMED, Namespace},
    until::until,
};

use super::{
    state::State,
    up::{NETWORK, WIRE, container, node},
};

/// How long an endpoint may take to be plugged in again, after its daemon was started again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what there is, and commands for it.
pub(super) fn print(state: &State, nodes: u8, programs: &Programs) {
    println!("\nHOST         ADDRESS      CONTAINER   ADDRESS ON \"{NETWORK}\"");
    let mut addresses = Vec::new();
    for number in 1..=nodes {
        let name = container(number);
        let address = until("the container has an address", PATIENCE, || address(&name));
        let address = address.unwrap_or_else(|_| "none".to_owned());
        let (host, underlay) = (node(number), hosts::address_v4(number).to_string());
        println!("{host:<12} {underlay:<12} {name:<11} {address}");
        addresses.push(address);
    }
    let (last, target) = (node(nodes), &addresses[addresses.len() - 1]);
    let (from, folder, ctl) = (container(1), shown(&state.folder()), shown(&programs.overlayctl));
    println!(
        "
Try:
  # from container to container; and in another terminal, what the hosts say to each other
  ip netns exec {from} ping -c 3 {target}
  ip netns exec {WIRE} tshark -n -i {BRIDGE} -f 'udp port 4789'

  # what the cluster is, and one more container
  export OVERLAYD_SOCKET={folder}/node1/socket
  {ctl} node ls
  {ctl} endpoint ls
  ip netns add web
  {ctl} endpoint attach --network {NETWORK} --name web --interface eth0 --netns /run/netns/web

  # {last} loses its daemon, and gets it back; what it has logged
  kill -9 $(head -1 {folder}/node{nodes}/pid)
  cargo xtask lab up --nodes {nodes}
  tail {folder}/node{nodes}/log

  # leave nothing
  ip netns delete web; cargo xtask lab down"
    );
}

/// A path as somebody types it who is where we are.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// The IPv4 address of a container.
fn address(name: &str) -> Result<String> {
    let netns = Namespace::open(&Path::new(NAMED).join(name))?;
    let shown = netns.ip("-brief -4 address show dev eth0")?;
    let address = shown.split_whitespace().nth(2).context("it has none")?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}
