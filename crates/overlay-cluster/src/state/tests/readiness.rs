//! Who takes new flows.

use overlay_types::{HealthDraft, HealthProbe, Readiness};
use rstest::rstest;

use super::*;
use crate::state::HealthReport;

fn probe() -> HealthProbe {
    HealthDraft::new("tcp:80".parse().unwrap()).try_into().unwrap()
}

/// A task with a probe on node 1.
fn probed(lab: &mut Lab) -> Endpoint {
    let ingress = lab.state.ingress().unwrap().id;
    let service = lab.service(svc("web", &[], &[]));
    lab.endpoint(EndpointDraft { health: Some(probe()), ..task(&service, ingress, 1) })
}

fn report(node: u128, passing: &[EndpointId], failing: &[EndpointId]) -> Action {
    Action::ReportHealth(HealthReport {
        node: NodeId::from_u128(node),
        passing: passing.iter().copied().collect(),
        failing: failing.iter().copied().collect(),
    })
}

fn set(lab: &mut Lab, id: EndpointId, to: Readiness) {
    lab.run(Action::SetReadiness { id, to });
}

fn readiness(lab: &Lab, id: EndpointId) -> Readiness {
    lab.state.endpoint(id).unwrap().readiness
}

#[test]
fn s13_an_endpoint_begins_as_ready_unless_it_says_otherwise() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let plain = lab.endpoint(standalone(&network, 1));
    let draft = EndpointDraft { readiness: Readiness::Starting, ..standalone(&network, 1) };
    let starting = lab.endpoint(draft);
    let probed = probed(&mut lab);
    let found = [plain, starting, probed].map(|endpoint| endpoint.readiness);
    assert_eq!(found, [Readiness::Ready, Readiness::Starting, Readiness::Starting]);
}

#[test]
fn s13_an_owner_says_whether_an_endpoint_takes_flows() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let endpoint = lab.endpoint(standalone(&network, 1));
    for to in [Readiness::Draining, Readiness::Ready, Readiness::Starting, Readiness::Ready] {
        set(&mut lab, endpoint.id, to);
        let now = lab.state.endpoint(endpoint.id).unwrap();
        assert_eq!((now.readiness, now.meta.changed_at), (to, lab.state.revision()));
        assert_eq!(now.meta.created_at, endpoint.meta.created_at);
    }
    let before = lab.state.revision();
    set(&mut lab, endpoint.id, Readiness::Ready);
    assert_eq!(lab.state.revision(), before, "the same again changes nothing");
    let failing = Action::SetReadiness { id: endpoint.id, to: Readiness::Failing };
    assert_eq!(lab.refuse(failing).field(), Some("readiness"));
}

#[rstest]
#[case(Readiness::Starting, true, Readiness::Ready)]
#[case(Readiness::Starting, false, Readiness::Starting)]
#[case(Readiness::Ready, false, Readiness::Failing)]
#[case(Readiness::Draining, true, Readiness::Draining)]
#[case(Readiness::Draining, false, Readiness::Draining)]
fn s13_a_probe_moves_what_is_not_draining(
    #[case] from: Readiness,
    #[case] passes: bool,
    #[case] to: Readiness,
) {
    let mut lab = Lab::new();
    let id = probed(&mut lab).id;
    set(&mut lab, id, from);
    let (passing, failing) = if passes { (vec![id], vec![]) } else { (vec![], vec![id]) };
    let before = lab.state.revision();
    lab.run(report(1, &passing, &failing));
    assert_eq!(readiness(&lab, id), to);
    assert_eq!(lab.state.revision() == before, from == to, "what changes nothing is no write");
}

#[test]
fn s13_an_endpoint_that_failed_comes_back() {
    let mut lab = Lab::new();
    let id = probed(&mut lab).id;
    for (passing, failing, to) in [
        (vec![id], vec![], Readiness::Ready),
        (vec![], vec![id], Readiness::Failing),
        (vec![id], vec![], Readiness::Ready),
    ] {
        lab.run(report(1, &passing, &failing));
        assert_eq!(readiness(&lab, id), to);
    }
}

#[test]
fn s13_a_report_is_about_what_its_node_probes() {
    let mut lab = Lab::new();
    let probed = probed(&mut lab).id;
    let network = lab.network(net("a"));
    let plain = lab.endpoint(standalone(&network, 1)).id;
    let gone = EndpointId::from_u128(77);
    // Of another node, and of endpoints without a probe, or that are not there any more.
    lab.run(report(2, &[probed], &[]));
    lab.run(report(1, &[gone], &[plain]));
    assert_eq!(readiness(&lab, probed), Readiness::Starting);
    assert_eq!(readiness(&lab, plain), Readiness::Ready);
    let many: Vec<_> = (0..1025).map(EndpointId::from_u128).collect();
    assert_eq!(lab.refuse(report(1, &many, &[])).field(), Some("endpoints"));
    assert_eq!(lab.refuse(report(9, &[], &[])).code(), "NOT_FOUND");
}
