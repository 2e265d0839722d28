//! What others do to the rules, and that a comparison in full puts back what is ours.

use anyhow::{Context, Result, ensure};
use overlay_dataplane::kernel::nft::{Watch, admission, gateway, gateway::Gateway};
use overlay_testkit::lab;

use crate::{
    admission::{NETWORK, REFUSED, Underlay, members},
    host::Host,
};

/// A firewall of somebody else, of the kind that a reload makes anew.
const FIREWALL: &str = "table inet firewalld {
    set trusted { type ipv4_addr; elements = { 192.0.2.2 } }
    chain filter_INPUT {
        type filter hook input priority 10; policy accept;
        ip saddr @trusted counter accept
    }
}";

#[test]
fn d06_what_is_deleted_or_changed_by_hand_comes_back() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut underlay = Underlay::new(false)?;
    let id = admission::table_id();
    let table = admission::table(4789, &members(false));
    for script in [
        "flush ruleset",
        "delete table inet overlay_admission",
        "flush chain inet overlay_admission judge",
        "insert rule inet overlay_admission judge accept",
        "insert rule inet overlay_admission input tcp dport 22 ct state new log accept",
        "add chain inet overlay_admission late { type filter hook input priority 50; }",
        "delete element inet overlay_admission members4 { 0x00011170 . 192.0.2.2 }",
        "add element inet overlay_admission members4 { 0x00011170 . 192.0.2.4 }",
        "add set inet overlay_admission mine { type inet_service; flags timeout; }",
        "add table inet overlay_admission { flags dormant; }",
    ] {
        underlay.host.script(script)?;
        let changes = underlay.host.put(&id, Some(&table)).context(script)?;
        ensure!(!changes.is_empty(), "{script} was not noticed");
        let before = underlay.host.counted(REFUSED)?;
        underlay.send(4, NETWORK, b"refused")?;
        underlay.send(2, NETWORK, b"admitted")?;
        assert_eq!(underlay.arrives(NETWORK)?, b"admitted", "{script}");
        assert_eq!(underlay.host.counted(REFUSED)?, before + 1, "{script}");
        underlay.is_quiet().context(script)?;
    }
    Ok(())
}

/// Without the table anybody gets in: what the tests above see is its doing.
#[test]
fn d06_a_flushed_table_admits_anybody_until_it_is_back() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let underlay = Underlay::new(false)?;
    underlay.host.script("flush ruleset")?;
    underlay.send(4, NETWORK, b"from nobody")?;
    assert_eq!(underlay.arrives(NETWORK)?, b"from nobody");
    Ok(())
}

#[test]
fn d07_r09_tables_of_others_are_never_touched() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    host.script(FIREWALL)?;
    let before = host.with_handles("inet firewalld")?;
    let gateway =
        Gateway { bridge: "gw".into(), isolated: true, masquerade: true, ..Gateway::default() };
    let (admission_id, gateway_id) = (admission::table_id(), gateway::table_id());
    host.put(&admission_id, Some(&admission::table(4789, &members(false))))?;
    host.put(&gateway_id, Some(&gateway.table()))?;
    assert_eq!(host.with_handles("inet firewalld")?, before);
    // It reloads: its table goes and comes, and so does nothing else.
    host.script(&format!("delete table inet firewalld; {FIREWALL}"))?;
    assert!(host.put(&admission_id, Some(&admission::table(4789, &members(false))))?.is_empty());
    host.put(&admission_id, None)?;
    host.put(&gateway_id, None)?;
    assert_eq!(host.list()?.trim(), host.script("list table inet firewalld")?.trim());
    Ok(())
}

/// What goes is heard of before the call that took it away returns.
#[test]
fn d06_a_change_is_heard_of_at_once() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut host = Host::new()?;
    let mut watch = host.namespace.enter(Watch::open)?;
    assert!(!watch.changed()?);
    let (id, table) = (admission::table_id(), admission::table(4789, &members(false)));
    host.put(&id, Some(&table))?;
    assert!(watch.changed()?);
    assert!(host.put(&id, Some(&table))?.is_empty());
    assert!(!watch.changed()?, "reading is no change");
    host.script("flush ruleset")?;
    assert!(watch.changed()?);
    // More than the socket's buffer holds is heard of too.
    for _ in 0..400 {
        host.put(&id, Some(&table))?;
        host.put(&id, None)?;
    }
    assert!(watch.changed()?);
    assert!(!watch.changed()?);
    Ok(())
}
