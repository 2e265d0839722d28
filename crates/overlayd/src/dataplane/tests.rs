use overlay_dataplane::{
    conformance::{self, Candidate},
    fake::FakeDataplane,
};

use super::*;

type Fakes = NodeDataplane<FakeDataplane, FakeDataplane>;

fn node(kernel: bool) -> Fakes {
    let kernel = kernel.then(FakeDataplane::new);
    NodeDataplane { user: FakeDataplane::new(), kernel, in_kernel: BTreeSet::new() }
}

#[test]
fn d04_both_kinds_of_nodes_pass_the_conformance_suite() {
    for kernel in [false, true] {
        conformance::check(|| Candidate::new(node(kernel)));
    }
}
