//! A service whose task is on another host than who asks for it: real daemons on two hosts, the kernel's
//! dataplane.

use core::time::Duration;
use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use anyhow::{Context, Result};
use overlay_testkit::{cluster::Cluster, hosts, lab::Namespace, until::until};
use serde_json::Value;

use crate::{
    layouts::{Pair, node},
    load,
    programs::programs,
};

/// A published port, and the task's.
const PORTS: (u16, u16) = (8080, 80);
/// Names of the layouts: the task's own address, the service's, and the published port of a node that has no
/// task, asked from outside.
pub(crate) const DIRECT: &str = "task";
pub(crate) const VIRTUAL: &str = "virtual address";
pub(crate) const MESH: &str = "mesh";
const TASK: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 50));
/// Number on the wire of who asks from outside.
const STRANGER: u8 = 99;
const PATIENCE: Duration = Duration::from_mins(1);

/// The same service, asked for in three ways.
pub(crate) fn ours() -> Result<Vec<Pair>> {
    let folder = tempfile::tempdir()?;
    let flags = ["--dataplane", "kernel"].map(str::to_owned);
    let cluster = Cluster::start(folder.path(), &programs()?, &[flags.to_vec(), flags.to_vec()])?;
    let [one, two] = &cluster.hosts[..] else { unreachable!("two hosts") };
    let ctl = |words: &str| one.ctl(&words.split(' ').collect::<Vec<_>>());
    ctl("network create --attachable --subnet 10.0.1.0/24 net")?;
    ctl("service create --name inside --network net")?;
    let (asked, own) = PORTS;
    let published = ["tcp", "udp"].map(|p| format!("--publish {asked}:{own}/{p}")).join(" ");
    ctl(&format!("service create --name outside {published}"))?;
    let [client, inside, outside] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
    one.attach("net", "client", &client.path(), &[])?;
    let own = ["--service", "inside", "--ip", &TASK.to_string()];
    two.attach("net", "inside", &inside.path(), &own)?;
    two.attach("ingress", "outside", &outside.path(), &["--service", "outside"])?;
    let stranger = Namespace::new()?;
    hosts::plug(&stranger, &cluster.wire, STRANGER)?;
    let shown: Value = serde_json::from_str(&ctl("--format json service inspect inside")?)?;
    let vip = shown[0]["vips"][0]["addresses"][0].as_str().context("a virtual address")?;
    let layouts = [
        (DIRECT, [&client, &inside], TASK, None),
        (VIRTUAL, [&client, &inside], vip.parse()?, None),
        (MESH, [&stranger, &outside], node(1), Some(PORTS)),
    ];
    let ends = layouts.map(|(_, ends, ..)| ends.map(|end| Namespace::open(&end.path())));
    let places = layouts.map(|(name, _, address, ports)| (name, (address, ports)));
    // Daemons know the containers by the paths of these.
    let rest: Rc<dyn Any> = Rc::new((cluster, folder, [client, inside, outside]));
    let pair = |([client, server], (name, place)): ([Result<Namespace>; 2], (&str, _))| {
        let pair = Pair::new(name, [client?, server?], place, Rc::clone(&rest));
        let what = format!("{name} answers");
        until(&what, PATIENCE, || load::connections(&pair))?;
        Ok(pair)
    };
    ends.into_iter().zip(places).map(pair).collect()
}
