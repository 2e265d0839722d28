use proptest::prelude::*;

use super::*;

const VXLAN: u32 = 7;
const DEVICES: Devices = Devices { vxlan: VXLAN };

/// A kernel as far as entries go: a table of each kind, by its key.
#[derive(Debug, Default)]
struct Kernel {
    bridge: BTreeMap<MacAddr, u32>,
    tunnel: BTreeMap<MacAddr, IpAddr>,
    neighbors: BTreeMap<IpAddr, MacAddr>,
    flood: BTreeSet<IpAddr>,
    messages: usize,
}

impl Kernel {
    fn entries(&self) -> Vec<Entry> {
        let on = |link, content| Entry { link, content };
        let bridge = self.bridge.iter().map(|(mac, link)| on(*link, Content::Bridge(*mac)));
        let tunnel = self.tunnel.iter().map(|(m, node)| on(VXLAN, Content::Tunnel(*m, *node)));
        let neighbors =
            self.neighbors.iter().map(|(a, mac)| on(VXLAN, Content::Neighbor(*a, *mac)));
        let flood = self.flood.iter().map(|node| on(VXLAN, Content::Flood(*node)));
        bridge.chain(tunnel).chain(neighbors).chain(flood).collect()
    }

    fn make(&mut self, stations: &mut Stations) {
        for change in stations.take_changes(DEVICES) {
            for Entry { link, content } in &change.removed {
                match content {
                    Content::Bridge(mac) if self.bridge.get(mac) == Some(link) => {
                        self.bridge.remove(mac);
                    }
                    Content::Bridge(_) => {}
                    Content::Tunnel(mac, _) => drop(self.tunnel.remove(mac)),
                    Content::Neighbor(address, _) => drop(self.neighbors.remove(address)),
                    Content::Flood(node) => drop(self.flood.remove(node)),
                }
            }
            for Entry { link, content } in &change.put {
                match content {
                    Content::Bridge(mac) => drop(self.bridge.insert(*mac, *link)),
                    Content::Tunnel(mac, node) => drop(self.tunnel.insert(*mac, *node)),
                    Content::Neighbor(a, mac) => drop(self.neighbors.insert(*a, *mac)),
                    Content::Flood(node) => drop(self.flood.insert(*node)),
                }
            }
            self.messages += change.removed.len() + change.put.len();
            stations.made(&change, true);
        }
    }
}

type Remotes = BTreeMap<EndpointId, RemoteEndpoint>;

fn remotes(bits: &[(u8, u8, u8)]) -> Remotes {
    // Each endpoint has a station and an address of its own, as in a network.
    let stations: BTreeMap<_, _> =
        bits.iter().map(|(id, mac, node)| (*mac, (*id, *node))).collect();
    let remote = |(mac, (id, node)): (u8, (u8, u8))| {
        let addresses = Addresses {
            v4: Some([10, 0, 0, mac].into()),
            v6: (mac % 2 == 0).then(|| u128::from(mac).into()),
        };
        let mac = MacAddr([2, 0, 0, 0, 0, mac]);
        let node = IpAddr::from([192, 0, 2, node]);
        (EndpointId::from_u128(id.into()), RemoteEndpoint { mac, addresses, node })
    };
    stations.into_iter().map(remote).collect()
}

/// One comparison and what follows from it, as the dataplane does it.
fn converge(kernel: &mut Kernel, known: &mut Remotes, wanted: &Remotes) {
    let mut stations = Stations::read(DEVICES, kernel.entries());
    let mut found = Remotes::new();
    for (id, remote) in &*known {
        found.extend(stations.claim_remote(*id, remote).map(|found| (*id, found)));
    }
    found.extend(stations.unclaimed());
    for (op, (id, old)) in found.iter().filter(|(id, _)| !wanted.contains_key(id)).enumerate() {
        stations.remove_remote(op, *id, old);
    }
    for (id, new) in wanted.iter().filter(|(id, new)| found.get(id) != Some(new)) {
        stations.put_remote(0, *id, found.get(id), new);
    }
    kernel.make(&mut stations);
    known.clone_from(wanted);
}

fn expected(wanted: &Remotes) -> Kernel {
    let mut kernel = Kernel::default();
    for remote in wanted.values() {
        kernel.bridge.insert(remote.mac, VXLAN);
        kernel.tunnel.insert(remote.mac, remote.node);
        kernel.neighbors.extend(remote.addresses.iter().map(|address| (address, remote.mac)));
    }
    kernel
}

fn assert_equal(found: &Kernel, wanted: &Remotes) {
    let expected = expected(wanted);
    assert_eq!(found.bridge, expected.bridge);
    assert_eq!(found.tunnel, expected.tunnel);
    assert_eq!(found.neighbors, expected.neighbors);
}

#[test]
fn d05_a_restart_renames_without_a_message() {
    let wanted = remotes(&[(1, 1, 1), (2, 2, 1), (3, 4, 2)]);
    let (mut kernel, mut known) = (Kernel::default(), Remotes::new());
    converge(&mut kernel, &mut known, &wanted);
    assert_equal(&kernel, &wanted);
    let messages = kernel.messages;
    converge(&mut kernel, &mut Remotes::new(), &wanted);
    assert_equal(&kernel, &wanted);
    assert_eq!(kernel.messages, messages);
}

#[test]
fn groups_go_to_members_and_to_nobody_else() {
    let (mut kernel, mut stations) = (Kernel::default(), Stations::default());
    let nodes = |last: &[u8]| last.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect();
    stations.set_flooded(0, &nodes(&[1, 2]));
    kernel.make(&mut stations);
    assert_eq!(kernel.flood, nodes(&[1, 2]));
    // The last word counts.
    stations.set_flooded(0, &nodes(&[9]));
    stations.set_flooded(1, &nodes(&[2, 3]));
    kernel.make(&mut stations);
    assert_eq!(kernel.flood, nodes(&[2, 3]));
}

proptest! {
    /// From any entries, whoever made them, to any endpoints: with ids that are known, partly known
    /// or not known any more.
    #[test]
    fn d06_any_table_is_reached_from_any_other(
        before: Vec<(u8, u8, u8)>,
        wanted: Vec<(u8, u8, u8)>,
        damage: Vec<(u8, u8)>,
        forget: bool,
    ) {
        let (before, wanted) = (remotes(&before), remotes(&wanted));
        let (mut kernel, mut known) = (Kernel::default(), Remotes::new());
        converge(&mut kernel, &mut known, &before);
        for (kind, number) in damage {
            let mac = MacAddr([2, 0, 0, 0, 0, number]);
            let address = IpAddr::from([10, 0, 0, number]);
            match kind % 7 {
                0 => drop(kernel.bridge.remove(&mac)),
                1 => drop(kernel.tunnel.remove(&mac)),
                2 => drop(kernel.neighbors.remove(&address)),
                3 => drop(kernel.bridge.insert(mac, 99)),
                4 => drop(kernel.tunnel.insert(mac, [192, 0, 2, 99].into())),
                5 => drop(kernel.neighbors.insert(address, MacAddr([2, 0, 0, 0, 0, kind]))),
                _ => drop(kernel.bridge.insert(mac, VXLAN)),
            }
        }
        if forget {
            known.clear();
        }
        // One comparison for what can be told at once, one for what it uncovers.
        for _ in 0..3 {
            converge(&mut kernel, &mut known, &wanted);
        }
        assert_equal(&kernel, &wanted);
        let messages = kernel.messages;
        converge(&mut kernel, &mut known, &wanted);
        prop_assert_eq!(kernel.messages, messages);
    }
}
