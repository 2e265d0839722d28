//! The fence of a network is what the kernel gives back, changes by little, and goes without a trace.

use std::collections::BTreeMap;

use anyhow::Result;
use overlay_dataplane::kernel::nft::{
    diff,
    fence::{Fence, Port, table_id},
};
use overlay_testkit::lab;
use overlay_types::{Addresses, MacAddr};

use crate::host::Host;

fn port(index: u32) -> Port {
    let v4 = [10, 0, 1, index as u8].into();
    let v6 = [0xfd00, 0, 0, 1, 0, 0, 0, index as u16].into();
    let addresses = Addresses { v4: Some(v4), v6: Some(v6) };
    Port { index, mac: MacAddr::from_ipv4(v4), addresses, forwards: false }
}

/// Three ports and a VXLAN device, in the guise of bridges.
fn host() -> Result<(Host, Fence)> {
    let host = Host::new()?;
    for name in ["tunnel", "port10", "port11", "port12"] {
        host.namespace.ip(&format!("link add {name} type bridge"))?;
    }
    let ports = (10..12).map(|number| (format!("port{number}"), port(number))).collect();
    let tunnel = ("tunnel".to_owned(), 2);
    Ok((host, Fence { ports, tunnel }))
}

#[test]
fn n08_a_fence_is_read_back_and_changes_by_what_differs() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let (mut host, mut fence) = host()?;
    let id = table_id();
    host.put(&id, Some(&fence.table()))?;
    assert_eq!(host.put(&id, Some(&fence.table()))?, Vec::<String>::new());
    let before = fence.table();
    fence.ports.insert("port12".into(), port(12));
    let more = diff(&id, Some(&fence.table()), Some(&before));
    assert_eq!(more.changes().filter(|change| change.contains("chain frames")).count(), 0);
    assert_eq!(more.changes().count(), 7, "a chain, two rules, elements of four sets");
    host.put(&id, Some(&fence.table()))?;
    fence.ports.remove("port10");
    host.put(&id, Some(&fence.table()))?;
    fence.ports = BTreeMap::new();
    host.put(&id, Some(&fence.table()))?;
    host.put(&id, None)?;
    assert_eq!(host.list()?, "");
    Ok(())
}

/// Its chain stays or goes with it, by the kernel's version; what there is then can be mended.
#[test]
fn n08_a_fence_outlives_a_device_that_vanishes() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let (mut host, mut fence) = host()?;
    let id = table_id();
    host.put(&id, Some(&fence.table()))?;
    host.namespace.ip("link delete port11")?;
    fence.ports.remove("port11");
    host.put(&id, Some(&fence.table()))?;
    host.namespace.ip("link delete tunnel")?;
    host.namespace.ip("link add tunnel type bridge")?;
    host.put(&id, Some(&fence.table()))?;
    Ok(())
}
