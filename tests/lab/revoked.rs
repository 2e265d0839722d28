//! Revocation: a node that was removed loses its keys with all others at once, whatever it knows itself.

use anyhow::{Result, ensure};
use overlay_testkit::{hosts::address_v4, lab, until::until};
use rstest::rstest;

use crate::{
    ear::Ear,
    plane::{KERNEL_PAIR, MIXED_PAIR, Plane, USER_PAIR},
    setup::{BACK_WITHIN, Cluster, PATIENCE},
    talk::Talk,
};

/// What the removed node goes on to say.
const WORD: &[u8] = b"a word of one who was removed";

/// Cuts a host off from managers and gossip, but not from frames of networks.
const DEAF: &str = "add table inet deaf
add chain inet deaf input { type filter hook input priority -500; }
add rule inet deaf input tcp dport { 2377, 7946 } drop
add rule inet deaf input tcp sport { 2377, 7946 } drop
add rule inet deaf input udp dport 7946 drop";

/// Node 2 is removed, hears nothing of it, and goes on to seal what its container says.
fn revoked(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable --opt encrypted net")?;
        let (one, two) = (lab.container(1, "net")?, lab.container(2, "net")?);
        let talk = Talk::between(&two, &one, WORD)?;
        talk.until_answered()?;
        let status = lab.json(1, "key status")?;
        let peer = &status["peers"][0];
        ensure!(peer["node"]["name"] == "node2", "{status}");
        ensure!(peer["sending_epoch"].as_u64() >= Some(1), "{status}");
        ensure!(status["active_since_unix_ms"].as_u64() > Some(0), "{status}");
        until("what was carried is counted", PATIENCE, || {
            let status = lab.json(1, "key status")?;
            let peer = &status["peers"][0];
            let count = |key: &str| peer[key].as_u64().unwrap_or(0);
            ensure!(count("packets_in") > 0 && count("bytes_in") > count("packets_in"), "{peer}");
            ensure!(count("packets_out") > 0 && count("bytes_out") > 0, "{peer}");
            Ok(())
        })?;

        for rule in DEAF.lines() {
            lab.host(2).netns.run(&["nft", rule])?;
        }
        lab.ctl(1, "node rm --force node2")?;
        until("the keys are gone", BACK_WITHIN, || {
            let status = lab.json(1, "key status")?;
            ensure!(status["peers"].as_array().is_some_and(Vec::is_empty), "{status}");
            let address = address_v4(2).to_string();
            let associations = lab.host(1).netns.ip("xfrm state").unwrap_or_default();
            ensure!(!associations.contains(&address), "{associations}");
            Ok(())
        })?;
        let mut ear = Ear::in_namespace(&one.netns)?;
        let mut wire = Ear::in_namespace(&lab.host(1).netns)?;
        talk.until_asked()?;
        ensure!(!ear.has_heard(WORD)?, "a removed node is still understood");
        // It does send: the wire has ESP from it.
        ensure!(wire.udp_ports()?.contains(&4500), "node 2 sends nothing");
        Ok(())
    })
}

#[rstest]
#[case::user(USER_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn e02_c06_a_removed_node_loses_its_keys_at_once(#[case] planes: [Plane; 2]) -> Result<()> {
    revoked(&planes)
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
fn e02_c06_a_removed_node_loses_its_keys_at_once_with_esp(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    revoked(&planes)
}
