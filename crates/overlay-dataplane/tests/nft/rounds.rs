//! What is put into the kernel is what comes back, and `nft` understands it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use overlay_dataplane::kernel::nft::{
    Chain, Data, Expr, Family, Field, Hook, Key, Reg, Rule, Set, SetSpec, Table, TableId, Verdict,
    expr::{ACCEPT, Base, Cmp, Ct, DROP, FibAddress, Meta, NatKind, Numbers},
    table::{ChainKind, HookPoint, Policy},
};
use overlay_testkit::lab;
use serde_json::json;

use crate::host::Host;

const R0: Reg = Reg::new(0);

fn id() -> TableId {
    TableId::new(Family::Inet, "overlay_test")
}

fn hooked(kind: ChainKind, point: HookPoint, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook::new(kind, point, 7)), rules }
}

/// Every expression that loads or decides.
fn filter_rules() -> Vec<Rule> {
    let to = Reg::new(5);
    let mut rules = vec![
        Rule::new([Expr::Counter, Expr::Verdict(Verdict::Continue)]).comment("counted"),
        Rule::new([
            Expr::Payload { base: Base::Transport, offset: 12, len: 3, to: R0 },
            Expr::ToHostOrder { from: R0, to: R0 },
            Expr::ShiftRight { from: R0, to, bits: 8 },
            Expr::Bitwise { from: to, to, mask: vec![0xff; 4], xor: vec![1; 4] },
            Expr::SetMeta { key: Meta::Mark, from: to },
            Expr::SetCt { key: Ct::Mark, from: to },
            Expr::SetCt { key: Ct::FirstZone, from: to },
        ]),
        Rule::new([
            Expr::AddressType { of: FibAddress::Source, to: R0 },
            Expr::Lookup { set: "marks".into(), from: R0, to: None },
            Expr::LookupVerdict { set: "verdicts".into(), from: R0 },
            Expr::Lookup { set: "targets".into(), from: R0, to: Some(Reg::new(8)) },
            Expr::Immediate { value: vec![1, 2, 3, 4], to: Reg::new(4) },
            Expr::Number { numbers: Numbers::Random, modulus: 10, offset: 3, to: R0 },
            Expr::Number { numbers: Numbers::Incremental, modulus: 2, offset: 0, to: R0 },
            Expr::Hash { from: R0, len: 4, seed: 9, modulus: 5, offset: 1, to: R0 },
            Expr::Payload { base: Base::Network, offset: 8, len: 1, to: R0 },
            Expr::SetPayload { base: Base::Network, offset: 8, len: 1, from: R0 },
            Expr::Reject,
            Expr::NoRoute,
            Expr::Unreachable,
            Expr::Reset,
        ]),
        Rule::new([Expr::goto("other")]),
        Rule::new([Expr::Verdict(Verdict::Return)]),
        Rule::new([ACCEPT]),
    ];
    for key in [Meta::Mark, Meta::InputIndex, Meta::InputName, Meta::Family, Meta::Protocol] {
        rules.push(Rule::new([Expr::Meta { key, to: R0 }]));
    }
    for key in [Ct::State, Ct::Status, Ct::Mark] {
        rules.push(Rule::new([Expr::Ct { key, to: R0 }]));
    }
    for op in [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge] {
        rules.push(Rule::new([
            Expr::Meta { key: Meta::Family, to: R0 },
            Expr::Cmp { from: R0, op, value: vec![2] },
        ]));
    }
    rules
}

fn nat(kind: NatKind, port: Option<Reg>) -> Rule {
    let value = vec![192, 0, 2, 1];
    let family = [Expr::Meta { key: Meta::Family, to: R0 }, Expr::eq(R0, &[2])];
    let mut exprs = family.to_vec();
    exprs.extend([
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::eq(R0, &[6]),
        Expr::Immediate { value, to: R0 },
        Expr::Immediate { value: vec![0, 80], to: Reg::new(9) },
        Expr::Nat { kind, ipv6: false, address: R0, port },
    ]);
    Rule::new(exprs)
}

fn sets() -> BTreeMap<String, Set> {
    let with = |spec: SetSpec, elements: Vec<(Key, Option<Data>)>| Set {
        spec,
        elements: elements.into_iter().collect(),
    };
    let mark = |number: u32| Key::new(&[&number.to_ne_bytes()]);
    let jump = Some(Data::Verdict(Verdict::Jump("other".into())));
    BTreeMap::from([
        ("marks".into(), with(SetSpec::set([Field::Mark]), vec![(mark(70_000), None)])),
        (
            "verdicts".into(),
            with(
                SetSpec::verdict_map([Field::Mark]),
                vec![(mark(1), jump), (mark(2), Some(Data::Verdict(Verdict::Drop)))],
            ),
        ),
        (
            "targets".into(),
            with(
                SetSpec::map([Field::Mark], [Field::Ipv4, Field::Port]),
                vec![(mark(3), Some(Data::new(&[&[10, 0, 0, 1], &[0, 80]])))],
            ),
        ),
        (
            "concatenation".into(),
            with(
                SetSpec::set([Field::Ipv6, Field::Protocol, Field::Port]),
                vec![(Key::new(&[&[0xfd; 16], &[6], &[1, 187]]), None)],
            ),
        ),
        (
            "ranges".into(),
            with(
                SetSpec::map([Field::Ipv4], [Field::Mac]).interval(),
                vec![
                    (
                        Key::range(&[&[10, 0, 0, 0]], &[&[10, 0, 0, 255]]),
                        Some(Data::new(&[&[2; 6]])),
                    ),
                    (Key::range(&[&[10, 0, 1, 0]], &[&[10, 0, 1, 0]]), Some(Data::new(&[&[4; 6]]))),
                    (
                        Key::range(&[&[240, 0, 0, 0]], &[&[255, 255, 255, 255]]),
                        Some(Data::new(&[&[6; 6]])),
                    ),
                ],
            ),
        ),
        (
            "ranges_of_several".into(),
            with(
                SetSpec::set([Field::Ipv4, Field::Port]).interval(),
                vec![(
                    Key::range(&[&[10, 0, 0, 0], &[0, 80]], &[&[10, 0, 0, 255], &[0, 90]]),
                    None,
                )],
            ),
        ),
        (
            "names".into(),
            with(
                SetSpec::set([Field::Device]),
                vec![(Key::new(&[b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"]), None)],
            ),
        ),
    ])
}

fn everything() -> Table {
    let mut table = Table { comment: Some("all of it".into()), sets: sets(), ..Table::default() };
    let mut last = hooked(ChainKind::Filter, HookPoint::Input, filter_rules());
    last.hook.as_mut().expect("a base chain").policy = Policy::Drop;
    let route = Rule::new([Expr::Meta { key: Meta::OutputName, to: R0 }]);
    table.chains = BTreeMap::from([
        ("other".into(), Chain { hook: None, rules: vec![Rule::new([DROP])] }),
        ("input".into(), last),
        ("output".into(), hooked(ChainKind::Route, HookPoint::Output, vec![route])),
        (
            "raw".into(),
            hooked(ChainKind::Filter, HookPoint::Prerouting, vec![Rule::new([Expr::Notrack])]),
        ),
        (
            "dnat".into(),
            hooked(
                ChainKind::Nat,
                HookPoint::Prerouting,
                vec![
                    nat(NatKind::Destination, Some(Reg::new(9))),
                    nat(NatKind::Destination, None),
                    Rule::new([Expr::DeviceTo { to: R0 }, Expr::Redirect { port: None }]),
                ],
            ),
        ),
        (
            "snat".into(),
            hooked(
                ChainKind::Nat,
                HookPoint::Postrouting,
                vec![nat(NatKind::Source, None), Rule::new([Expr::Masquerade])],
            ),
        ),
    ]);
    table
}

#[test]
fn d06_the_kernel_gives_back_what_it_was_given() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let table = everything();
    host.put(&id(), Some(&table))?;
    assert!(host.put(&id(), Some(&table))?.is_empty());

    // What the real command makes of it.
    let rules = host.objects("rule")?;
    assert_eq!(rules.len(), table.chains.values().map(|chain| chain.rules.len()).sum::<usize>());
    let sets = host.objects("set")?.into_iter().chain(host.objects("map")?);
    let sets: BTreeMap<_, _> =
        sets.filter_map(|set| Some((set["name"].as_str()?.to_owned(), set))).collect();
    assert_eq!(sets.len(), table.sets.len());
    assert_eq!(sets["marks"]["elem"], json!([70_000]));
    assert_eq!(sets["ranges_of_several"]["elem"][0]["concat"][1], json!({"range": [80, 90]}));
    assert_eq!(sets["targets"]["elem"][0][1], json!({"concat": ["10.0.0.1", 80]}));
    assert_eq!(sets["names"]["elem"], json!(["eth0"]));
    let tables = host.script("list tables")?;
    ensure!(tables.contains("table inet overlay_test"), "{tables}");
    ensure!(host.list()?.contains("comment \"all of it\""));
    Ok(())
}

/// From every state to every other that differs from it in some part.
#[test]
fn d06_any_table_is_reached_from_any_other() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let whole = everything();
    let mut states = vec![None, Some(Table::default()), Some(whole.clone())];
    for name in whole.chains.keys().filter(|name| *name != "other") {
        let mut table = whole.clone();
        table.chains.remove(name);
        states.push(Some(table));
        let mut table = whole.clone();
        let chain = table.chains.get_mut(name).context("chain")?;
        chain.rules.truncate(1);
        chain.hook.as_mut().context("hook")?.policy = Policy::Accept;
        states.push(Some(table));
    }
    for name in whole.sets.keys() {
        let mut table = whole.clone();
        table.sets.get_mut(name).context("set")?.elements.pop_first();
        states.push(Some(table));
    }
    let mut table = whole.clone();
    table.sets.get_mut("ranges").context("set")?.spec = SetSpec::set([Field::Port]);
    table.sets.get_mut("ranges").context("set")?.elements.clear();
    states.push(Some(table));
    let mut table = whole.clone();
    table.chains.get_mut("raw").context("chain")?.hook.as_mut().context("hook")?.priority = -5;
    states.push(Some(table));

    for from in &states {
        for to in &states {
            host.put(&id(), from.as_ref())?;
            host.put(&id(), to.as_ref())?;
        }
    }
    Ok(())
}

/// What the routing mesh needs: frames that a device sends get another destination.
#[test]
fn s11_frames_are_changed_on_their_way_out_of_a_device() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    host.namespace.ip("link add eth0 type veth peer name eth1")?;
    let id = TableId::new(Family::Netdev, "overlay_test");
    let hook =
        Hook { device: Some("eth0".into()), ..Hook::new(ChainKind::Filter, HookPoint::Egress, 0) };
    let rewrite = Rule::new([
        Expr::Meta { key: Meta::Mark, to: R0 },
        Expr::Lookup { set: "macs".into(), from: R0, to: Some(Reg::new(4)) },
        Expr::SetPayload { base: Base::Link, offset: 0, len: 6, from: Reg::new(4) },
    ]);
    let spec = SetSpec::map([Field::Mark], [Field::Mac]);
    let mut set = Set::new(spec);
    set.elements.insert(Key::new(&[&1_u32.to_ne_bytes()]), Some(Data::new(&[&[2; 6]])));
    let table = Table {
        chains: BTreeMap::from([("out".into(), Chain { hook: Some(hook), rules: vec![rewrite] })]),
        sets: BTreeMap::from([("macs".into(), set)]),
        ..Table::default()
    };
    host.put(&id, Some(&table))?;
    ensure!(host.list()?.contains("hook egress"), "{}", host.list()?);
    Ok(())
}
