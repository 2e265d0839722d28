//! What nodes say of themselves and their hosts, and what follows from it.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::{hosts::CABLE, until::until};

use crate::{
    plane::Plane::{Kernel, User},
    setup::{Cluster, Lab, PATIENCE},
};

/// What the cluster knows of a node, once it is so.
fn until_known(lab: &Lab, node: u8, key: &str, value: &serde_json::Value) -> Result<()> {
    until("the cluster knows", PATIENCE, || {
        let shown = lab.json(1, &format!("node inspect node{node}"))?;
        ensure!(&shown[0][key] == value, "{key}: {}", shown[0][key]);
        Ok(())
    })
}

#[test]
fn n19_a_node_that_starts_with_another_dataplane_is_known_with_that_one() -> Result<()> {
    Cluster::of(&[User, Kernel]).run(|lab| {
        until_known(lab, 2, "dataplane", &"kernel".into())?;
        let release = kernel_release()?;
        until_known(lab, 2, "kernel", &release.into())?;
        lab.stop(2, Signal::SIGTERM)?;
        lab.hosts[1].flags = User.flags();
        lab.start(2)?;
        until_known(lab, 2, "dataplane", &"user".into())?;
        let listed = lab.ctl(1, "node ls")?;
        let line = listed.lines().find(|line| line.contains("node2")).context("node2")?;
        ensure!(line.trim_end().ends_with("user"), "{line}");
        Ok(())
    })
}

fn kernel_release() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

#[test]
fn e05_n19_a_node_without_raw_sockets_is_on_no_encrypted_network_of_protocol_50() -> Result<()> {
    Cluster { init: "--esp-over-ip", ..Cluster::of(&[User, User]) }.run(|lab| {
        lab.ctl(1, "network create --attachable plain")?;
        lab.ctl(1, "network create --attachable --opt encrypted secret")?;
        lab.stop(2, Signal::SIGTERM)?;
        lab.hosts[1].started_by = ["setpriv", "--bounding-set=-net_raw"].map(str::to_owned).into();
        lab.start(2)?;
        until_known(lab, 2, "encryption", &false.into())?;
        // It stays: another one's namespace would have the path of one that ended.
        let plain = lab.container(2, "plain")?;
        plain.until_plugged()?;
        let refused = lab.container(2, "secret").err().context("it is on the network")?;
        ensure!(format!("{refused:#}").contains("encryption"), "{refused:#}");
        lab.stop(2, Signal::SIGTERM)?;
        lab.hosts[1].started_by.clear();
        lab.start(2)?;
        until_known(lab, 2, "encryption", &true.into())?;
        lab.container(2, "secret")?.until_plugged()
    })
}

#[test]
fn n09_members_that_differ_in_mtu_are_reported_with_what_to_do() -> Result<()> {
    Cluster::of(&[User, Kernel]).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        lab.ctl(1, "network create --attachable --opt mtu=1300 small")?;
        let (one, two) = (lab.container(1, "net")?, lab.container(2, "net")?);
        one.until_plugged()?;
        two.until_plugged()?;
        ensure!(two.netns.ip("link show dev eth0")?.contains("mtu 1450"));
        until("all is known", PATIENCE, || {
            let shown = lab.ctl(1, "network inspect net")?;
            ensure!(shown.contains("1450, derived"), "{shown}");
            Ok(())
        })?;
        lab.host(2).netns.ip(&format!("link set {CABLE} mtu 1400"))?;
        let warning = "1350 on node2, 1450 on node1";
        until("the mismatch is shown", PATIENCE, || {
            let shown = lab.ctl(1, "network inspect net")?;
            ensure!(shown.contains(warning) && shown.contains("--opt mtu=1350"), "{shown}");
            let status = lab.ctl(1, "status")?;
            ensure!(status.contains("network net: "), "{status}");
            let log = lab.host(1).log();
            let told = |network: &str| {
                log.lines().any(|line| line.contains(network) && line.contains(warning))
            };
            ensure!(told("network net: ") && told("network ingress: "), "the log does not say it");
            Ok(())
        })?;
        // The nodes' places are on the ingress network, of which it is told, too.
        for network in ["net", "ingress"] {
            let about = format!("network {network}: ");
            let log = lab.host(1).log();
            let told = log.lines().filter(|line| line.contains(&about) && line.contains(warning));
            let told = told.count();
            ensure!(told == 1, "network {network}: told {told} times");
        }
        // The node's own endpoints have what fits now.
        until("the interface follows", PATIENCE, || {
            let shown = two.netns.ip("link show dev eth0")?;
            ensure!(shown.contains("mtu 1350"), "{shown}");
            Ok(())
        })
    })
}
