//! All or nothing, and errors that name what was wrong.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use overlay_dataplane::kernel::nft::{
    Batch, Chain, Family, Field, Key, Nft, NftError, Rule, Set, SetSpec, Table, TableId,
    expr::{DROP, Expr},
};
use overlay_testkit::lab;

use crate::host::Host;

fn id() -> TableId {
    TableId::new(Family::Inet, "overlay_test")
}

fn refused(result: Result<(), NftError>) -> Result<(String, Option<i32>, Option<String>)> {
    match result {
        Err(NftError::Refused { object, source, text }) => {
            Ok((object, source.raw_os_error(), text))
        }
        other => anyhow::bail!("{other:?} instead of a refusal"),
    }
}

#[test]
fn d06_a_transaction_is_made_whole_or_not_at_all() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let mut table = Table::default();
    let rules = vec![Rule::new([Expr::jump("nowhere")]).comment("lost")];
    table.chains.insert("first".into(), Chain { hook: None, rules: vec![Rule::new([DROP])] });
    table.chains.insert("second".into(), Chain { hook: None, rules });
    let mut batch = Batch::new();
    batch.add_all(&id(), &table);
    let (object, number, _) = refused(host.nft.apply(&batch))?;
    assert_eq!(object, "add rule \"lost\" to chain second of table inet overlay_test");
    assert_eq!(number, Some(2)); // ENOENT
    assert_eq!(host.nft.observe(&id())?, None);
    assert_eq!(host.list()?, "");
    Ok(())
}

#[test]
fn d06_a_refused_element_is_named() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let spec = SetSpec::set([Field::Port]);
    let table = Table {
        sets: BTreeMap::from([("ports".into(), Set::new(spec.clone()))]),
        ..Table::default()
    };
    host.put(&id(), Some(&table))?;
    let keys: Vec<_> = (0..400_u16).map(|port| Key::new(&[&port.to_be_bytes()])).collect();
    let mut batch = Batch::new();
    batch.add_elements(&id(), "ports", &spec, keys[..300].iter().map(|key| (key, None)));
    host.nft.apply(&batch)?;
    let mut batch = Batch::new();
    batch.delete_elements(&id(), "ports", &spec, &keys);
    let (object, number, _) = refused(host.nft.apply(&batch))?;
    assert_eq!(object, "delete elements of set ports of table inet overlay_test, key 012c");
    assert_eq!(number, Some(2));
    let observed = host.nft.observe(&id())?.context("no table")?;
    assert_eq!(observed.sets["ports"].elements.len(), 300);
    Ok(())
}

/// The kernel says more than a number, and it reaches the error.
#[test]
fn d06_the_kernels_text_is_kept() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let ip = TableId::new(Family::Ipv4, "overlay_test");
    let mut batch = Batch::new();
    batch.add_table(&ip, &Table::default());
    let unknown = Rule::new([Expr::Foreign("overlay".into())]);
    batch.add_chain(&ip, "c", None);
    batch.add_rule(&ip, "c", &unknown);
    let error = host.nft.apply(&batch).expect_err("an unknown expression");
    let text = error.to_string();
    assert!(text.starts_with("cannot add rule to chain c of table ip overlay_test: "), "{text}");
    assert!(text.ends_with("; nothing of the transaction was done"), "{text}");
    Ok(())
}

#[test]
fn d06_a_transaction_beyond_the_sockets_room_is_refused_by_its_size() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let mut batch = Batch::new();
    let long = "x".repeat(127);
    for number in 0..200_000 {
        batch.add_chain(&id(), &format!("{long}{number}"), None);
    }
    let result = host.nft.apply(&batch);
    assert!(
        matches!(result, Err(NftError::TooLarge { octets }) if octets > 20_000_000),
        "{result:?}"
    );
    // The socket is as good as before.
    host.put(&id(), Some(&Table::default()))?;
    Ok(())
}

#[test]
fn d06_a_namespace_that_is_not_there_is_named() {
    let error = Nft::open_in("/proc/self/nowhere".as_ref()).expect_err("no such file");
    assert!(error.to_string().contains("/proc/self/nowhere"), "{error}");
}
