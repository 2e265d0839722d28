#![expect(clippy::disallowed_methods, reason = "a test needs some instant")]

use overlay_types::{
    Addresses, Change, Endpoint, EndpointRole, HealthDraft, MacAddr, Meta, NetworkId, Object,
    Revision,
};

use super::*;

const ID: EndpointId = EndpointId::from_u128(1);
const NODE: NodeId = NodeId::from_u128(7);

fn target(change: impl FnOnce(&mut HealthDraft)) -> Target {
    let mut draft = HealthDraft::new("tcp:80".parse().unwrap());
    change(&mut draft);
    Target {
        probe: draft.try_into().unwrap(),
        address: [10, 0, 0, 3].into(),
        netns: Some("/run/netns/web".into()),
    }
}

/// Probes of one endpoint, and a clock that only they move.
struct Lab {
    probes: Probes,
    target: Target,
    start: Instant,
    now: Instant,
}

impl Lab {
    fn new(change: impl FnOnce(&mut HealthDraft)) -> Self {
        let (target, now) = (target(change), Instant::now());
        let mut probes = Probes::default();
        probes.follow([(ID, target.clone())].into(), now);
        Self { probes, target, start: now, now }
    }

    /// Waits for the next question and answers it.
    fn answer(&mut self, passed: bool) {
        loop {
            match self.probes.poll_output(self.now) {
                Output::Ask(id, target) => {
                    assert_eq!((id, &target), (ID, &self.target));
                    return self.probes.handle_answer(id, &target, passed, self.now);
                }
                Output::Wait(at) => self.now = at.expect("it is asked again"),
            }
        }
    }

    /// Answers as the text says, `+` or `-`; what the probe says after each.
    fn answers(&mut self, text: &str) -> String {
        let mut said = String::new();
        for answer in text.chars() {
            self.answer(answer == '+');
            said.push(match self.probes.0[&ID].tally.passes {
                None => '?',
                Some(true) => '+',
                Some(false) => '-',
            });
        }
        said
    }
}

fn view(readiness: Readiness) -> View {
    let mut view = View::default();
    let endpoint = Endpoint {
        id: ID,
        meta: Meta::default(),
        network: NetworkId::from_u128(1),
        node: NODE,
        service: None,
        name: None,
        addresses: Addresses::default(),
        mac: MacAddr::default(),
        role: EndpointRole::Workload,
        readiness,
        extras: None,
    };
    view.apply(Revision::new(1), [Change::Put(Object::Endpoint(endpoint))]);
    view
}

#[test]
fn s13_one_answer_makes_it_ready_and_several_in_a_row_unmake_it() {
    let mut lab = Lab::new(|draft| draft.retries = 3);
    assert_eq!(lab.answers("--+"), "??+");
    assert_eq!(lab.answers("--+---"), "+++++-");
}

#[test]
fn s13_what_comes_and_goes_has_to_prove_itself_ever_longer() {
    let mut lab = Lab::new(|draft| draft.retries = 1);
    assert_eq!(lab.answers("+-++"), "+--+");
    assert_eq!(lab.answers("-+++-++++"), "--------+");
    // After a long time that is forgotten.
    assert_eq!(lab.answers(&"+".repeat(64)), "+".repeat(64));
    assert_eq!(lab.answers("-++"), "--+");
}

#[test]
fn s13_failures_count_after_the_start_period() {
    let mut lab = Lab::new(|draft| {
        draft.retries = 1;
        draft.start_period = Duration::from_secs(2);
    });
    assert_eq!(lab.answers("----"), "????");
    assert_eq!(lab.now - lab.start, Duration::from_millis(1500));
    assert_eq!(lab.answers("-"), "-");
}

#[test]
fn s13_it_is_asked_soon_until_it_passes_and_then_at_its_interval() {
    let mut lab = Lab::new(|draft| draft.interval = Duration::from_secs(30));
    lab.answers("-+");
    assert_eq!(lab.now - lab.start, SOON);
    lab.answers("+");
    assert_eq!(lab.now - lab.start, SOON + Duration::from_secs(30));
    lab.answers("-+");
    assert_eq!(lab.now - lab.start, SOON * 2 + Duration::from_mins(1));
}

#[test]
fn s13_managers_are_told_what_they_do_not_know() {
    let mut lab = Lab::new(|draft| draft.retries = 1);
    let told = |lab: &Lab, readiness| {
        let report = lab.probes.report(&view(readiness), NODE);
        (report.passing.len(), report.failing.len())
    };
    assert_eq!(told(&lab, Readiness::Starting), (0, 0));
    lab.answers("+");
    let all = [Readiness::Starting, Readiness::Ready, Readiness::Failing, Readiness::Draining];
    assert_eq!(all.map(|r| told(&lab, r)), [(1, 0), (0, 0), (1, 0), (0, 0)]);
    lab.answers("-");
    assert_eq!(all.map(|r| told(&lab, r)), [(0, 0), (0, 1), (0, 0), (0, 0)]);
    assert!(lab.probes.report(&view(Readiness::Ready), NodeId::from_u128(8)).is_empty());
}

#[test]
fn s13_an_answer_of_before_says_nothing_about_another_target() {
    let mut lab = Lab::new(|_| {});
    let Output::Ask(id, old) = lab.probes.poll_output(lab.now) else { panic!("it is due") };
    assert_eq!(lab.probes.poll_output(lab.now), Output::Wait(None), "it is being asked");
    let new = target(|draft| draft.retries = 9);
    lab.probes.follow([(ID, new.clone())].into(), lab.now);
    lab.probes.handle_answer(id, &old, true, lab.now);
    assert_eq!(lab.probes.poll_output(lab.now), Output::Ask(ID, new));
    lab.probes.follow(BTreeMap::new(), lab.now);
    lab.probes.handle_answer(id, &old, true, lab.now);
    assert_eq!(lab.probes.poll_output(lab.now), Output::Wait(None));
}

#[test]
fn r06_questions_under_way_are_bounded() {
    let now = Instant::now();
    let mut probes = Probes::default();
    let ids = (0..100).map(EndpointId::from_u128);
    probes.follow(ids.map(|id| (id, target(|_| {}))).collect(), now);
    let mut asked = 0;
    while let Output::Ask(..) = probes.poll_output(now) {
        asked += 1;
    }
    assert_eq!(asked, MAX_ASKED);
}
