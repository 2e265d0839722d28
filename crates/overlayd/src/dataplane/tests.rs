use overlay_dataplane::{
    conformance::{self, Candidate},
    desired::Settings,
    fake::FakeDataplane,
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::Vni;

use super::{
    DataplaneKind::{Kernel, User},
    seat::{Part, Seat},
    *,
};

type Fakes = NodeDataplane<FakeDataplane, FakeDataplane>;

fn node(plain: DataplaneKind, encrypted: DataplaneKind) -> Fakes {
    let carriers = Carriers { plain, encrypted, opens_raw: true };
    let kernel = (plain == Kernel).then(FakeDataplane::new);
    NodeDataplane { user: FakeDataplane::new(), kernel, carriers, in_kernel: BTreeSet::new() }
}

/// A node in a namespace, and a folder for what tells of it.
fn traces(folder: &tempfile::TempDir) -> Traces {
    let path = |name| folder.path().join(name);
    Traces { netns_dir: path("netns"), holder: path("socket.esp"), ipsec: path("socket.ipsec") }
}

/// As after a crash in the middle of a leave, of a node without encrypted networks. Also on a kernel without
/// ESP, which has policies.
#[test]
fn d07_associations_and_policies_that_a_node_left_are_swept_by_the_file_that_tells_of_them() {
    if lab::skip() {
        return;
    }
    let (host, folder) = (Namespace::new().unwrap(), tempfile::tempdir().unwrap());
    let traces = traces(&folder);
    let esp = Esp { vxlan_port: 4788, encapsulation: Encapsulation::None };
    let start = || Protection::start([127, 0, 0, 1].into(), esp, None).unwrap();
    let left = || host.ip("xfrm policy").unwrap();
    let sweep = || host.enter(|| sweep_here(User, &traces));
    host.enter(|| start().enforce()).unwrap();
    sweep();
    assert_ne!(left(), "", "nothing tells whose they are");

    // Another daemon that runs has the seat.
    fs::write(&traces.ipsec, "").unwrap();
    let other = host.enter(|| Seat::take(Part::KernelDataplane)).unwrap();
    sweep();
    assert!(!left().is_empty() && traces.ipsec.exists(), "they may be the other daemon's");
    drop(other);
    sweep();
    assert_eq!(left(), "");
    assert!(!traces.ipsec.exists());
}

#[test]
fn d04_both_kinds_of_nodes_pass_the_conformance_suite() {
    for (plain, encrypted) in [(User, User), (Kernel, User), (Kernel, Kernel)] {
        conformance::check(|| Candidate::new(node(plain, encrypted)));
    }
}

/// What each side of a node is told of a plain network, an encrypted one and their end.
#[test]
fn d03_plain_networks_go_to_the_kernel_and_encrypted_ones_to_the_switch() {
    let [plain, sealed] = [1, 2].map(NetworkId::from_u128);
    let put = |id: NetworkId, encrypted| {
        let vni = Vni::for_overlay(5000 + id.to_u128() as u32).unwrap();
        let (multicast, mtu, subnets) = (false, 1400, Vec::new());
        Op::PutNetwork(id, Settings { vni, encrypted, multicast, mtu, subnets })
    };
    let ops = vec![
        put(plain, false),
        put(sealed, true),
        Op::SetMembers(plain, BTreeSet::new()),
        Op::SetMembers(sealed, BTreeSet::new()),
        Op::RemoveNetwork(plain),
        Op::RemoveNetwork(sealed),
    ];
    let of = |id: NetworkId, ops: &[Op]| -> Vec<Op> {
        let about = |op: &&Op| match op {
            Op::PutNetwork(other, _) | Op::SetMembers(other, _) | Op::RemoveNetwork(other) => {
                *other == id
            }
            _ => false,
        };
        ops.iter().filter(about).cloned().collect()
    };
    let mut kernel_node = node(Kernel, User);
    assert!(kernel_node.apply(ops.clone()).iter().all(Result::is_ok));
    assert_eq!(kernel_node.kernel.as_ref().unwrap().log(), of(plain, &ops));
    assert_eq!(kernel_node.user.log(), of(sealed, &ops));
    let mut user_node = node(User, User);
    assert!(user_node.apply(ops.clone()).iter().all(Result::is_ok));
    assert_eq!(user_node.user.log(), ops);
    let mut sealing_node = node(Kernel, Kernel);
    assert!(sealing_node.apply(ops.clone()).iter().all(Result::is_ok));
    assert_eq!(sealing_node.kernel.as_ref().unwrap().log(), ops);

    // What a run before this one left in the kernel is removed there.
    let mut kernel_node = node(Kernel, User);
    kernel_node.kernel.as_mut().unwrap().apply(ops[..1].to_vec());
    assert_eq!(remove_all(&mut kernel_node).unwrap(), 1);
    assert_eq!(kernel_node.observe().unwrap(), Observed::default());
}
