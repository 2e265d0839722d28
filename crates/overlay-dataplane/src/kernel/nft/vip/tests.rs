use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::Addresses;

use super::{
    content::{Content, Delta},
    plan::{Cut, plan},
    *,
};
use crate::{
    desired::{Backend, Service},
    kernel::nft::batch::Batch,
};

const ME: EndpointId = EndpointId::from_u128(1);

type Wanted = BTreeMap<ServiceId, Service>;

fn both(host: u16) -> Addresses {
    let v6 = [0xfd00, 0, 0, 0, 0, 0, 0, host];
    Addresses { v4: Some([10, 0, (host >> 8) as u8, host as u8].into()), v6: Some(v6.into()) }
}

/// Backends from a number of an address each.
fn service(vip: u16, backends: impl IntoIterator<Item = u16>, draining: &[u16]) -> Service {
    let backend = |host: u16| {
        let id = EndpointId::from_u128(u128::from(host) << 64 | 7);
        (id, Backend { addresses: both(host), draining: draining.contains(&host) })
    };
    Service { vips: both(vip), backends: backends.into_iter().map(backend).collect() }
}

/// Some services; no address is that of two.
fn any_services() -> impl Strategy<Value = Wanted> {
    let one = (0_u16..5, any::<u8>(), any::<u8>());
    proptest::collection::vec(proptest::option::of(one), 4).prop_map(|all| {
        let (mut wanted, mut used) = (Wanted::new(), BTreeSet::new());
        for (number, entry) in (1..).zip(all) {
            let Some((vip, backends, draining)) = entry else { continue };
            if used.insert(vip) {
                let bits = |mask: u8| (0..8).filter(move |bit| mask >> bit & 1 == 1);
                let draining: Vec<_> = bits(draining).collect();
                let service = service(300 + vip, bits(backends), &draining);
                wanted.insert(ServiceId::from_u128(number), service);
            }
        }
        wanted
    })
}

/// Goes the whole way, or as if the process ended behind some of its steps. Returns the cut, if it
/// came to that.
fn go(content: &mut Content, wanted: &Wanted, steps: usize) -> Option<Cut> {
    let way = plan(content, wanted, None, ME);
    let before = way.changes.len();
    let deltas = way.changes.into_iter().chain(way.ends);
    deltas.take(steps).for_each(|delta| content.patch(delta));
    (steps > before).then_some(way.cut)
}

fn reach(wanted: &Wanted) -> Content {
    let mut content = Content::default();
    go(&mut content, wanted, usize::MAX);
    content
}

fn targets(content: &Content) -> BTreeSet<(IpAddr, IpAddr)> {
    let faces = content.faces().iter();
    faces.flat_map(|(vip, face)| face.targets().map(|t| (*vip, t.address))).collect()
}

proptest! {
    /// Also when the process ends on the way: nothing but the table is known afterwards.
    #[test]
    fn s01_any_services_are_reached_from_any_others_and_lost_flows_are_cut(
        from in any_services(), to in any_services(), steps in 0_usize..6,
    ) {
        let content = reach(&from);
        prop_assert_eq!(content.as_services(), from);
        let mut crashed = content.clone();
        let first = go(&mut crashed, &to, steps);
        let mut content_read = read(&table("eth0", &crashed));
        let second = go(&mut content_read, &to, usize::MAX);
        prop_assert_eq!(content_read.as_services(), to.clone());
        prop_assert!(plan(&content_read, &to, None, ME).is_empty());
        prop_assert_eq!(read(&table("eth0", &content_read)), content_read.clone());

        let cuts = [first, second];
        let is_cut = |vip, backend| cuts.iter().flatten().any(|cut| cut.covers(vip, backend));
        let after = targets(&content_read);
        for (vip, backend) in targets(&content) {
            prop_assert_eq!(is_cut(vip, backend), !after.contains(&(vip, backend)));
        }
    }

    /// Who is to lose its flows gets none any more before they are cut, and nobody else moves twice.
    #[test]
    fn s01_before_the_cut_nobody_gets_flows_who_shall_not(
        from in any_services(), to in any_services(),
    ) {
        let mut content = reach(&from);
        let end = reach(&to);
        for delta in plan(&content.clone(), &to, None, ME).changes {
            content.patch(delta);
        }
        for (vip, face) in content.faces() {
            let Some(wanted) = end.faces().get(vip) else {
                prop_assert_eq!(face.service, None);
                continue;
            };
            let turns: BTreeSet<_> = face.turns.iter().collect();
            prop_assert_eq!(turns, wanted.turns.iter().collect());
        }
    }

    /// Whatever somebody put into the table.
    #[test]
    fn any_table_is_read(name in "service_.{0,30}|backends4_[0-9]{1,3}|vips4", octets: Vec<u8>) {
        let mut found = table("eth0", &reach(&[(ServiceId::from_u128(1), service(300, 1..4, &[]))].into()));
        found.chains.insert(name.clone(), Chain::default());
        let set = found.sets.entry(name).or_insert_with(|| Set::new(turns(false)));
        set.elements.insert(Key { first: octets.clone(), last: None }, Some(Data::Value(octets)));
        let content = read(&found);
        plan(&content, &Wanted::new(), None, ME);
        table("eth0", &content);
    }
}

#[test]
fn s01_a_change_writes_what_changed_and_no_more() {
    let id = ServiceId::from_u128(1);
    let mut wanted: Wanted = (1..100)
        .map(|number| (ServiceId::from_u128(number.into()), service(2000 + number, 0..3, &[])))
        .collect();
    wanted.insert(id, service(2001, 0..1000, &[]));
    let content = reach(&wanted);
    wanted.insert(id, service(2001, 1..1000, &[]));
    let mut touched = Some([id].into());
    let one = plan(&content, &wanted, touched.as_ref(), ME);
    let moved = |delta: &Delta| -> usize {
        let faces = delta.faces.iter().map(|(vip, face)| {
            let old: Vec<_> = elements(*vip, &content.faces()[vip]).collect();
            let new: Vec<_> = elements(*vip, face.as_ref().unwrap()).collect();
            new.iter().filter(|element| !old.contains(element)).count()
        });
        faces.sum()
    };
    // The last takes the place of the first, which is parked until its flows are cut.
    assert_eq!(one.changes.iter().map(moved).collect::<Vec<_>>(), [4]);
    let mut batch = Batch::new();
    change::write(&mut batch, &table_id(ME), &content, &one.changes[0]);
    let written: Vec<_> = batch.changes().collect();
    assert_eq!(written.len(), 7, "flush, 2 rules, elements of 2 maps: {written:#?}");
    assert_eq!(one.ends.len(), 1);

    wanted.remove(&id);
    touched = Some([id, ServiceId::from_u128(5)].into());
    let one = plan(&content, &wanted, touched.as_ref(), ME);
    assert_eq!(one.changes[0].services.len(), 1, "the other one is as it shall be");
}

#[test]
fn s01_endpoints_do_not_all_begin_with_the_same_backend() {
    let wanted: Wanted = [(ServiceId::from_u128(1), service(300, 0..10, &[]))].into();
    let first = |number: u128| {
        let mut content = Content::default();
        let way = plan(&content, &wanted, None, EndpointId::from_u128(number));
        way.changes.into_iter().for_each(|delta| content.patch(delta));
        content.faces().values().next().unwrap().turns[0]
    };
    let begun: BTreeSet<_> = (0..100).map(first).collect();
    assert_eq!(begun.len(), 10);
}

#[test]
fn s01_changes_are_put_together_as_far_as_there_is_room() {
    let wanted: Wanted = (1..100)
        .map(|number| (ServiceId::from_u128(number.into()), service(2000 + number, 0..3, &[])))
        .collect();
    let changes = plan(&Content::default(), &wanted, None, ME).changes;
    for (load, expected) in [(0, 99), (200, 50), (usize::MAX, 1)] {
        let mut content = Content::default();
        let portions = plan::portions(changes.clone(), load);
        assert_eq!(portions.len(), expected);
        for delta in portions {
            content.patch(delta);
        }
        assert_eq!(content.services().len(), 99);
    }
}
