//! A change of an endpoint's table as part of a transaction.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::ServiceId;

use super::{
    ADDRESSES, Data, Key, VIPS, addresses, chain, chain_name,
    content::{Content, Delta, Face},
    elements, jump, shard, turns, vip_key, vips,
};
use crate::kernel::nft::{batch::Batch, set::SetSpec, table::TableId};

/// Elements of one map that go and that come.
#[derive(Debug)]
struct Elements {
    spec: SetSpec,
    gone: Vec<Key>,
    come: Vec<(Key, Option<Data>)>,
}

/// Writes what makes `before` another content. What is named comes first, and goes last.
pub(in crate::kernel) fn write(batch: &mut Batch, id: &TableId, before: &Content, delta: &Delta) {
    let mut maps = BTreeMap::new();
    for (vip, after) in &delta.faces {
        compare_owner(&mut maps, *vip, before.faces().get(vip), after.as_ref());
        compare_turns(&mut maps, *vip, before.faces().get(vip), after.as_ref());
    }
    let counted = shards_after(before, delta);
    for (name, (ipv6, count)) in &counted {
        if *count > 0 && before.in_shard(name) == 0 {
            batch.add_set(id, name, &turns(*ipv6));
        }
    }
    let rewritten: Vec<_> = delta
        .services
        .iter()
        .filter_map(|(service, vips)| Some((*service, before.lots_after(delta, (*vips)?.iter()))))
        .filter(|(service, after)| {
            let old = before.services().get(service);
            old.is_none_or(|old| before.lots(old.iter()) != *after)
        })
        .collect();
    for (service, _) in &rewritten {
        if before.services().contains_key(service) {
            flush(batch, id, before, *service);
        } else {
            batch.add_chain(id, &chain_name(*service), None);
        }
    }
    let removed = delta.services.iter().filter(|(_, vips)| vips.is_none());
    let removed: BTreeSet<_> = removed.map(|(service, _)| *service).collect();
    for service in &removed {
        flush(batch, id, before, *service);
    }
    for (name, map) in &maps {
        batch.delete_elements(id, name, &map.spec, &map.gone);
    }
    let come = |batch: &mut Batch, name: &String, map: &Elements| {
        let elements = map.come.iter().map(|(key, data)| (key, data.as_ref()));
        batch.add_elements(id, name, &map.spec, elements);
    };
    // A virtual address leads to nothing that is not there yet.
    let is_vips = |name: &str| VIPS.contains(&name);
    maps.iter().filter(|(name, _)| !is_vips(name)).for_each(|(name, map)| come(batch, name, map));
    for (service, lots) in &rewritten {
        batch.add_rules(id, &chain_name(*service), &chain(lots));
    }
    maps.iter().filter(|(name, _)| is_vips(name)).for_each(|(name, map)| come(batch, name, map));
    for (name, (_, count)) in &counted {
        if *count == 0 && before.in_shard(name) > 0 {
            batch.delete_set(id, name);
        }
    }
    for service in &removed {
        batch.delete_chain(id, &chain_name(*service));
    }
}

/// Deletes the rules of a chain that has any.
fn flush(batch: &mut Batch, id: &TableId, before: &Content, service: ServiceId) {
    let vips = before.services().get(&service).copied().unwrap_or_default();
    if !before.lots(vips.iter()).is_empty() {
        batch.flush_chain(id, &chain_name(service));
    }
}

/// How many virtual addresses are in each map of turns afterwards, of those that change.
fn shards_after(before: &Content, delta: &Delta) -> BTreeMap<String, (bool, usize)> {
    let mut counted = BTreeMap::new();
    for (vip, after) in &delta.faces {
        let name = shard(*vip);
        let now = before.in_shard(&name);
        let (_, count) = counted.entry(name).or_insert((vip.is_ipv6(), now));
        match (before.faces().contains_key(vip), after) {
            (false, Some(_)) => *count += 1,
            (true, None) => *count -= 1,
            _ => {}
        }
    }
    counted
}

fn map_of(maps: &mut BTreeMap<String, Elements>, name: String, spec: SetSpec) -> &mut Elements {
    maps.entry(name).or_insert_with(|| Elements { spec, gone: Vec::new(), come: Vec::new() })
}

fn compare_owner(
    maps: &mut BTreeMap<String, Elements>,
    vip: IpAddr,
    before: Option<&Face>,
    after: Option<&Face>,
) {
    let owner = |face: Option<&Face>| face.and_then(|face| face.service);
    let (before, after) = (owner(before), owner(after));
    if before == after {
        return;
    }
    let (ipv6, at) = (vip.is_ipv6(), usize::from(vip.is_ipv6()));
    if before.is_none() || after.is_none() {
        let set = map_of(maps, ADDRESSES[at].into(), addresses(ipv6));
        set.gone.extend(before.map(|_| vip_key(vip)));
        set.come.extend(after.map(|_| (vip_key(vip), None)));
    }
    let map = map_of(maps, VIPS[at].into(), vips(ipv6));
    if before.is_some() {
        map.gone.push(vip_key(vip));
    }
    map.come.extend(after.map(|service| (vip_key(vip), Some(jump(service)))));
}

fn compare_turns(
    maps: &mut BTreeMap<String, Elements>,
    vip: IpAddr,
    before: Option<&Face>,
    after: Option<&Face>,
) {
    let nothing = Face::default();
    let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    if before.turns == after.turns && before.parked == after.parked {
        return;
    }
    let mut old: BTreeMap<_, _> = elements(vip, before).collect();
    let map = map_of(maps, shard(vip), turns(vip.is_ipv6()));
    for (key, data) in elements(vip, after) {
        match old.remove(&key) {
            Some(same) if same == data => {}
            Some(_) => {
                map.gone.push(key.clone());
                map.come.push((key, Some(data)));
            }
            None => map.come.push((key, Some(data))),
        }
    }
    map.gone.extend(old.into_keys());
}
