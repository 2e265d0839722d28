//! Hosts connected by WireGuard in user space, as others have written it.

use core::time::Duration;
use std::{fs, path::Path};

use anyhow::{Context, Result};
use overlay_testkit::{
    lab::{Namespace, Running},
    until::until,
};

use crate::layouts::{Pair, hosts, node};

/// What a tunnel over a path of 1 500 octets leaves.
const MTU: u16 = 1420;
const PORT: u16 = 51820;
const PATIENCE: Duration = Duration::from_secs(10);

/// The one of the protocol's author, in Go.
pub(crate) fn in_go(name: &str) -> Result<Pair> {
    pair(name, &["wireguard-go", "--foreground"])
}

/// Cloudflare's, in Rust.
pub(crate) fn in_rust(name: &str) -> Result<Pair> {
    pair(name, &["boringtun-cli", "--foreground", "--disable-drop-privileges"])
}

/// Two hosts with a device each. Both programs take its name last, and `wg` finds them by it.
fn pair(name: &str, program: &[&str]) -> Result<Pair> {
    let (hosts, folder) = (hosts()?, tempfile::tempdir()?);
    let mut running = Vec::new();
    let mut keys = Vec::new();
    for (number, host) in (1..=2).zip(&hosts) {
        let device = device(name, number);
        running.push(start(host, program, &device)?);
        let private = host.run(&["wg", "genkey"])?;
        let file = folder.path().join(&device);
        fs::write(&file, &private)?;
        let file = file.to_str().context("a path in UTF-8")?;
        let port = PORT.to_string();
        host.run(&["wg", "set", &device, "private-key", file, "listen-port", &port])?;
        keys.push(host.run(&["sh", "-c", "exec wg pubkey <\"$0\"", file])?);
        host.ip(&format!("address add 10.0.1.{number}/24 dev {device}"))?;
        host.ip(&format!("link set {device} mtu {MTU} up"))?;
    }
    for (number, (host, other_key)) in (1..).zip(hosts.iter().zip(keys.iter().rev())) {
        let (device, other) = (device(name, number), 3 - number);
        let (endpoint, allowed) = (format!("{}:{PORT}", node(other)), format!("10.0.1.{other}/32"));
        let peer = ["peer", other_key.trim(), "endpoint", &endpoint, "allowed-ips", &allowed];
        host.run(&[&["wg", "set", &device], &peer[..]].concat())?;
    }
    Ok(Pair::of_containers(name, hosts, running))
}

/// A name of 15 octets at most, other than those of other programs: they meet in one folder.
fn device(name: &str, number: u8) -> String {
    format!("{name}{number}")
}

fn start(host: &Namespace, program: &[&str], device: &str) -> Result<Running> {
    let command = [program, &[device]].concat();
    let hint = || format!("`cargo xtask bench speed` installs {}", program[0]);
    let running = host.spawn(&command).with_context(hint)?;
    let socket = Path::new("/var/run/wireguard").join(format!("{device}.sock"));
    until("the program's socket", PATIENCE, || Ok(fs::metadata(&socket).map(drop)?))?;
    Ok(running)
}
