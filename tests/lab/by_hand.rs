//! What a user takes away by hand comes back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    hosts::Host,
    lab::{NAMED, Namespace},
    until::until,
};
use rstest::rstest;

use crate::{
    plane::{KERNELS, MIXED, Plane, USERS},
    probe::ping,
    setup::{BACK_WITHIN, Cluster, Lab},
};

/// The namespaces that a host's daemon has made for its networks.
fn networks(host: &Host) -> Result<Vec<Namespace>> {
    let mut networks = Vec::new();
    for file in std::fs::read_dir(host.folder.join("netns"))? {
        let path = file?.path();
        // That of the routing mesh has none of a network's devices.
        if !path.ends_with("mesh") {
            networks.push(Namespace::open(&path)?);
        }
    }
    Ok(networks)
}

/// Names of devices, as `ip` lists them, of a kind.
fn devices(netns: &Namespace, kind: &str) -> Result<Vec<String>> {
    let shown = netns.ip(&format!("-brief link show type {kind}"))?;
    let name = |line: &str| line.split(['@', ' ']).next().unwrap_or_default().to_owned();
    Ok(shown.lines().map(name).collect())
}

fn delete(netns: &Namespace, kind: &str) -> Result<()> {
    let names = devices(netns, kind)?;
    ensure!(!names.is_empty(), "no device of kind {kind}");
    names.iter().try_for_each(|name| netns.ip(&format!("link delete {name}")).map(drop))
}

/// Something taken from the first node: what, and how. It must be something that was there.
type Theft = (&'static str, fn(&Lab) -> Result<()>);

/// What the kernel dataplane makes on a host.
const THEFTS: [Theft; 6] = [
    ("the VXLAN device", |lab| network(lab, |netns| delete(netns, "vxlan"))),
    ("the bridge", |lab| network(lab, |netns| delete(netns, "bridge"))),
    ("the ports", |lab| network(lab, |netns| delete(netns, "veth"))),
    ("the neighbours", |lab| network(lab, |n| n.ip("neighbor flush all nud permanent").map(drop))),
    ("the device's being up", |lab| {
        network(lab, |netns| {
            let vxlan = devices(netns, "vxlan")?.pop().context("a VXLAN device")?;
            netns.ip(&format!("link set {vxlan} down")).map(drop)
        })
    }),
    ("the namespace", |lab| {
        for file in std::fs::read_dir(lab.host(1).folder.join("netns"))? {
            let path = file?.path();
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH)?;
            std::fs::remove_file(path)?;
        }
        Ok(())
    }),
];

fn network(lab: &Lab, take: impl Fn(&Namespace) -> Result<()>) -> Result<()> {
    let networks = networks(lab.host(1))?;
    ensure!(!networks.is_empty(), "no network");
    networks.iter().try_for_each(take)
}

#[test]
fn d06_what_is_taken_away_by_hand_comes_back() -> Result<()> {
    Cluster::of(&KERNELS).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let (one, two) = (lab.container(1, "net")?, lab.container(2, "net")?);
        ping(&one.netns, two.address())?;
        let back = |what: &str| {
            until("traffic comes back", BACK_WITHIN, || {
                let target = two.address().to_string();
                one.netns.run(&["ping", "-c", "1", "-W", "1", &target])
            })
            .with_context(|| format!("without {what}"))
        };
        one.netns.ip("link delete eth0")?;
        back("the container's device")?;
        for (what, take) in THEFTS {
            take(lab).with_context(|| format!("take {what}"))?;
            back(what)?;
        }
        Ok(())
    })
}

/// On nodes in user space there is the container's device, and nothing else to take.
#[rstest]
#[case::user(USERS, 1)]
#[case::mixed(MIXED, 3)]
fn d06_a_tap_device_that_was_deleted_comes_back(
    #[case] planes: [Plane; 3],
    #[case] node: u8,
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let (one, two) = (lab.container(node, "net")?, lab.container(2, "net")?);
        ping(&one.netns, two.address())?;
        let before = one.netns.ip("-brief address show dev eth0")?;
        for _ in 0..2 {
            one.netns.ip("link delete eth0")?;
            until("the device comes back", BACK_WITHIN, || {
                let shown = one.netns.ip("-brief address show dev eth0")?;
                ensure!(v4(&shown) == v4(&before), "{shown}, before: {before}");
                one.netns.run(&["ping", "-c", "1", "-W", "1", &two.address().to_string()])
            })?;
            let mac = one.netns.ip("-brief link show dev eth0")?;
            ensure!(mac.contains(&one.mac), "{mac}");
        }
        let log = lab.host(node).log();
        ensure!(log.contains("somebody changed the dataplane"), "it is not logged");
        Ok(())
    })
}

/// What `ip` shows but for link-local addresses.
fn v4(shown: &str) -> Vec<&str> {
    shown.split_whitespace().filter(|word| !word.starts_with("fe80::")).collect()
}

/// A container that is made anew at the path of the one before, before anybody has noticed.
#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn d06_a_container_that_takes_the_place_of_another_gets_its_device(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        std::fs::create_dir_all(NAMED)?;
        let first = Namespace::named("box")?;
        let path = Path::new(NAMED).join("box");
        let endpoint = lab.host(1).attach("net", "box", &path, &[])?;
        let other = lab.container(2, "net")?;
        ping(&first, other.address())?;
        // It has a cable to the outside, which ends with the namespace.
        lab.wire.connect("outside", &first, "inside")?;
        drop(first);
        lab.wire.run(&["ip", "netns", "delete", "box"])?;
        let again = Namespace::named("box")?;
        until("the first container's namespace is gone", BACK_WITHIN, || {
            ensure!(lab.wire.ip("link show dev outside").is_err(), "its cable is there");
            Ok(())
        })?;
        until("the second one has its device", BACK_WITHIN, || {
            again.run(&["ping", "-c", "1", "-W", "1", &other.address().to_string()])
        })?;
        lab.ctl(1, &format!("endpoint inspect {endpoint}")).map(drop)
    })
}
