//! Tables of the routing mesh are what the kernel gives back, and change by what differs.

use std::collections::BTreeSet;

use anyhow::Result;
use overlay_dataplane::kernel::nft::{
    diff,
    mesh::{
        Gate, Host as HostSide,
        answer::{Numbers, number, read, table_ids, tables},
        table_id,
    },
    publish::{HostPort, Ports, Target},
};
use overlay_testkit::lab;
use overlay_types::{Addresses, EndpointId, MacAddr, Protocol};

use crate::host::Host;

#[test]
fn s10_host_and_gate_tables_are_read_back() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let addresses = Addresses { v4: Some([198, 19, 0, 9].into()), v6: None };
    let port = HostPort { protocol: Protocol::Sctp, address: None, port: 8080 };
    let ports = Ports::from([(port, Target { addresses, port: 80 })]);
    let side = HostSide { cable: "cable".into(), ports };
    host.put(&table_id(), Some(&side.table()))?;
    let more = HostSide { ports: Ports::new(), ..side };
    assert_eq!(host.put(&table_id(), Some(&more.table()))?.len(), 1, "one element goes");
    host.put(&table_id(), None)?;
    for masquerade in [false, true] {
        let ends = vec!["198.19.0.1/30".parse()?, "fd00::1/126".parse()?];
        // One is in another, two are side by side.
        let subnets = ["10.0.0.0/24", "10.0.0.128/25", "10.0.1.0/24", "fd00:1::/64"];
        let mut gate = Gate {
            interface: "ingress0".into(),
            cable: "host0".into(),
            subnets: subnets.iter().map(|text| Ok(text.parse()?)).collect::<Result<_>>()?,
            host: ends,
            masquerade,
        };
        host.put(&table_id(), Some(&gate.table()))?;
        gate.subnets.remove(&"10.0.0.0/24".parse()?);
        host.put(&table_id(), Some(&gate.table()))?;
        let text = host.list()?;
        assert!(text.contains("tcp option maxseg size set rt mtu"), "{text}");
    }
    host.put(&table_id(), None)?;
    assert_eq!(host.list()?, "");
    Ok(())
}

#[test]
fn s11_tables_of_a_task_are_read_back_and_change_by_their_elements() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    host.namespace.ip("link add eth0 type bridge")?;
    let gates = |count: u8| (1..=count).map(|n| MacAddr([2, 0x42, 10, 0, 0, n])).collect();
    let first = number(&Numbers::new(), &gates(3));
    let ids = table_ids(EndpointId::from_u128(7));
    for (id, table) in ids.iter().zip(tables("eth0", &first)) {
        host.put(id, Some(&table))?;
    }
    // What packets put in is not what somebody changed.
    let fill = format!(
        "add element {} asked4 {{ 192.0.2.9 . 5000 . 17 . 53 : 10.0.0.9 }}",
        ids[0].to_string().replace("table ", "")
    );
    host.script(&fill)?;
    let [found, _] = [host.nft.observe(&ids[0])?, host.nft.observe(&ids[1])?];
    assert_eq!(found.as_ref().map(read), Some(first.clone()));
    let all: BTreeSet<MacAddr> = gates(200);
    let second = number(&first, &all);
    for ((id, old), new) in ids.iter().zip(tables("eth0", &first)).zip(tables("eth0", &second)) {
        let changes: Vec<_> =
            diff(id, Some(&new), Some(&old)).changes().map(str::to_owned).collect();
        assert!(changes.iter().all(|change| change.contains("elements")), "{changes:?}");
        host.put(id, Some(&new))?;
        assert!(host.list()?.contains("asked4") || id == &ids[1]);
    }
    for id in &ids {
        host.put(id, None)?;
    }
    assert_eq!(host.list()?, "");
    Ok(())
}
