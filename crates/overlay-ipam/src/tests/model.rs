//! Random sequences of calls against a model that lists every address.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use overlay_types::SubnetSpec;
use proptest::{prelude::*, sample::Index};

use super::spec;
use crate::{AddressState, Family, IpamError, NetworkIpam, QUARANTINE_LIMIT, Request};

/// Every address of a subnet, listed.
struct ModelSubnet {
    all: Vec<IpAddr>,
    /// Positions that a request for any may get.
    range: Vec<usize>,
    reserved: BTreeSet<IpAddr>,
    next: usize,
}

/// What [`NetworkIpam`] should do, written to be obvious and slow.
#[derive(Default)]
struct Model {
    subnets: Vec<ModelSubnet>,
    live: BTreeSet<IpAddr>,
    quarantine: BTreeMap<Family, VecDeque<IpAddr>>,
}

impl ModelSubnet {
    fn new(spec: &SubnetSpec) -> Self {
        // Of a /64, the model lists as many as the test can reach.
        let all: Vec<_> =
            (0..spec.subnet.size().min(2_048)).map_while(|n| spec.subnet.nth(n)).collect();
        let range = spec.ip_range.unwrap_or(spec.subnet);
        let mut reserved: BTreeSet<_> = spec.aux_addresses.values().copied().collect();
        reserved.insert(all[0]);
        if spec.subnet.is_ipv4() {
            reserved.extend(all.last());
        }
        let gateway = spec.gateway.or_else(|| all.iter().copied().find(|a| !reserved.contains(a)));
        reserved.extend(gateway);
        let is_any = |n: &usize| range.contains(all[*n]) && !reserved.contains(&all[*n]);
        let range = (0..all.len()).filter(is_any).collect();
        Self { all, range, reserved, next: 0 }
    }
}

impl Model {
    fn held(&self, address: IpAddr) -> bool {
        let waits = self.quarantine.values().any(|q| q.contains(&address));
        waits || self.live.contains(&address)
    }

    fn any(&mut self, family: Family) -> Option<IpAddr> {
        for at in 0..self.subnets.len() {
            let s = &self.subnets[at];
            if Family::of(s.all[0]) != family {
                continue;
            }
            let (ahead, behind): (Vec<usize>, Vec<usize>) =
                s.range.iter().partition(|n| **n >= s.next);
            let mut in_turn = ahead.into_iter().chain(behind);
            let found = in_turn.find(|n| !self.held(s.all[*n]));
            if let Some(n) = found {
                let address = s.all[n];
                self.subnets[at].next = n + 1;
                self.live.insert(address);
                return Some(address);
            }
        }
        let oldest = self.quarantine.entry(family).or_default().pop_front()?;
        self.live.insert(oldest);
        Some(oldest)
    }

    fn exactly(&mut self, address: IpAddr) -> Option<IpAddr> {
        let s = self.subnets.iter().find(|s| s.all.contains(&address))?;
        if s.reserved.contains(&address) || !self.live.insert(address) {
            return None;
        }
        self.quarantine.entry(Family::of(address)).or_default().retain(|a| *a != address);
        Some(address)
    }

    fn release(&mut self, address: IpAddr) -> bool {
        let was_live = self.live.remove(&address);
        let in_range = |s: &ModelSubnet| s.range.iter().any(|n| s.all[*n] == address);
        if was_live && self.subnets.iter().any(in_range) {
            let queue = self.quarantine.entry(Family::of(address)).or_default();
            queue.push_back(address);
            if queue.len() > QUARANTINE_LIMIT {
                queue.pop_front();
            }
        }
        was_live
    }

    /// Everything that can be observed agrees.
    fn check(&self, ipam: &NetworkIpam) {
        assert_eq!(ipam.allocated().collect::<BTreeSet<_>>(), self.live, "allocated");
        for (usage, s) in ipam.usage().zip(&self.subnets) {
            let waiting: Vec<_> = self.quarantine.values().flatten().collect();
            let used = s.all.iter().filter(|a| self.live.contains(a)).count();
            let quarantined = s.all.iter().filter(|a| waiting.contains(a)).count();
            let counts = [used, quarantined, s.reserved.len()].map(|n| n as u128);
            assert_eq!([usage.used, usage.quarantined, usage.reserved], counts, "{usage:?}");
            assert_eq!(usage.size, counts.iter().sum::<u128>() + usage.free, "{usage:?}");
            if usage.size == s.all.len() as u128 {
                let live = s.range.iter().filter(|n| self.live.contains(&s.all[**n])).count();
                assert_eq!(usage.available, (s.range.len() - live) as u128, "{usage:?}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Call {
    Any(Family, usize),
    Exactly(Index, Index),
    Release(Index, usize),
    ReleaseAny(Index, Index),
    All(Vec<(Index, Index)>, Vec<Family>),
    AddSubnet(Index),
    Reload,
}

fn call() -> impl Strategy<Value = Call> {
    let family = || prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)];
    let address = || (any::<Index>(), any::<Index>());
    let all = (prop::collection::vec(address(), 0..3), prop::collection::vec(family(), 0..4));
    prop_oneof![
        8 => (family(), prop_oneof![9 => 1..8_usize, 1 => 100..300_usize]).prop_map(|(f, n)| Call::Any(f, n)),
        4 => address().prop_map(|(s, n)| Call::Exactly(s, n)),
        8 => (any::<Index>(), prop_oneof![9 => 1..8_usize, 1 => 100..300_usize]).prop_map(|(i, n)| Call::Release(i, n)),
        2 => address().prop_map(|(s, n)| Call::ReleaseAny(s, n)),
        2 => all.prop_map(|(named, any)| Call::All(named, any)),
        1 => any::<Index>().prop_map(Call::AddSubnet),
        1 => Just(Call::Reload),
    ]
}

/// Subnets that do not overlap: small, with a range, wider than a chunk's word, and IPv6.
const SPECS: [&str; 7] = [
    "10.0.9.0/28 gateway=10.0.9.14 printer=10.0.9.1",
    "10.0.8.0/24 range=10.0.8.64/26 router=10.0.8.70",
    "10.1.0.0/22",
    "10.0.9.16/30",
    "fd00:9::/64",
    "fd00:8::/120 gateway=fd00:8::80 dns=fd00:8::3",
    "fd00:7::/64 range=fd00:7::100/125",
];

fn reload(ipam: &NetworkIpam) -> NetworkIpam {
    let text = serde_json::to_string(ipam).unwrap();
    let copy: NetworkIpam = serde_json::from_str(&text).unwrap();
    assert_eq!(&copy, ipam);
    assert_eq!(serde_json::to_string(&copy).unwrap(), text);
    copy
}

/// Runs one call on both; whether it was refused.
fn run(ipam: &mut NetworkIpam, model: &mut Model, call: &Call) {
    let before = ipam.clone();
    let address = |model: &Model, s: &Index, n: &Index| *n.get(&s.get(&model.subnets).all);
    let refused = match call {
        Call::Any(family, times) => (0..*times).any(|_| {
            let (got, expected) = (ipam.allocate(*family), model.any(*family));
            assert_eq!(got.as_ref().ok(), expected.as_ref(), "{got:?}");
            false
        }),
        Call::Exactly(s, n) => {
            let address = address(model, s, n);
            let (got, expected) = (ipam.allocate(address), model.exactly(address));
            assert_eq!(got.as_ref().ok(), expected.as_ref(), "{got:?}");
            got.is_err()
        }
        Call::Release(at, times) => {
            for _ in 0..(*times).min(model.live.len()) {
                let nth = at.index(model.live.len());
                let address = *model.live.iter().nth(nth).unwrap();
                ipam.release(address).unwrap();
                assert!(model.release(address));
            }
            false
        }
        Call::ReleaseAny(s, n) => {
            let address = address(model, s, n);
            let got = ipam.release(address);
            assert_eq!(got.is_ok(), model.release(address), "{got:?}");
            got.is_err()
        }
        Call::All(named, any) => {
            let named = named.iter().map(|(s, n)| Request::Exactly(address(model, s, n)));
            let requests: Vec<_> = any.iter().map(|f| Request::Any(*f)).chain(named).collect();
            run_all(ipam, model, &requests)
        }
        Call::AddSubnet(at) => {
            let new = spec(SPECS[at.index(SPECS.len())]);
            let got = ipam.add_subnet(new.clone());
            if got.is_ok() {
                model.subnets.push(ModelSubnet::new(&new));
            }
            got.is_err()
        }
        Call::Reload => {
            *ipam = reload(ipam);
            false
        }
    };
    if refused {
        assert_eq!(*ipam, before, "a refused call changed something");
    }
}

/// All or nothing: meets the requests one by one on a copy of the model's answers.
fn run_all(ipam: &mut NetworkIpam, model: &mut Model, requests: &[Request<IpAddr>]) -> bool {
    let before = ipam.clone();
    let got = ipam.allocate_all(requests);
    // One after the other, those by name first, on the implementation that the other calls check.
    let mut single = before;
    let in_turn = requests.iter().filter(|r| matches!(r, Request::Exactly(_)));
    let in_turn = in_turn.chain(requests.iter().filter(|r| matches!(r, Request::Any(_))));
    let one_by_one: Result<Vec<_>, IpamError> = in_turn.map(|r| single.allocate(*r)).collect();
    assert_eq!(got.is_ok(), one_by_one.is_ok(), "{got:?} {one_by_one:?}");
    let Ok(got) = got else { return true };
    assert_eq!(*ipam, single);
    let by_name = requests.iter().zip(&got).filter(|(r, _)| matches!(r, Request::Exactly(_)));
    for (_, address) in by_name {
        assert_eq!(model.exactly(*address), Some(*address));
    }
    for (request, address) in requests.iter().zip(&got) {
        if let Request::Any(family) = request {
            assert_eq!(model.any(*family), Some(*address));
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Unique-address, exact accounting, next-fit, quarantine, atomic refusal, replay from a
    /// snapshot at any point.
    #[test]
    fn r01_c09_n14_every_sequence_agrees_with_the_model(
        initial in prop::sample::subsequence(SPECS.to_vec(), 1..=3),
        calls in prop::collection::vec(call(), 1..60),
    ) {
        let specs: Vec<_> = initial.iter().map(|text| spec(text)).collect();
        let mut model = Model { subnets: specs.iter().map(ModelSubnet::new).collect(), ..Model::default() };
        let mut ipam = NetworkIpam::new(specs).unwrap();
        for call in &calls {
            run(&mut ipam, &mut model, call);
            model.check(&ipam);
        }
        let states = model.live.iter().map(|a| ipam.state(*a));
        for state in states {
            prop_assert_eq!(state, Ok(AddressState::Allocated));
        }
        reload(&ipam);
    }

    /// Two replicas, one of which was restored from a snapshot in between, end in the same bytes.
    #[test]
    fn c09_replicas_stay_byte_identical(
        calls in prop::collection::vec(call(), 1..40),
        cut in any::<Index>(),
    ) {
        let specs = || SPECS[1..5].iter().map(|text| spec(text));
        let replica = |restore_at: Option<usize>| {
            let mut model = Model { subnets: specs().map(|s| ModelSubnet::new(&s)).collect(), ..Model::default() };
            let mut ipam = NetworkIpam::new(specs()).unwrap();
            for (at, call) in calls.iter().enumerate() {
                if restore_at == Some(at) {
                    ipam = reload(&ipam);
                }
                run(&mut ipam, &mut model, call);
            }
            serde_json::to_vec(&ipam).unwrap()
        };
        prop_assert_eq!(replica(None), replica(Some(cut.index(calls.len()))));
    }
}
