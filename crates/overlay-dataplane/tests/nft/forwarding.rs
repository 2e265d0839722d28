//! Hosts that forward nothing by default, with the real `iptables`.

use core::net::SocketAddr;

use anyhow::Result;
use overlay_dataplane::kernel::nft::forwarding::{self, Passage};
use overlay_testkit::{
    lab::{self, DOCKER},
    traffic::{connect, is_refused, listen},
};
use overlay_types::Protocol;

use crate::gateway::{BRIDGE, Site, inside, outer};

fn rules(site: &Site, program: &str) -> Result<String> {
    site.host.namespace.run(&[program, "-S"])
}

#[test]
fn n18_a_policy_that_drops_what_is_forwarded_is_overridden_and_no_rule_is() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(true)?;
    site.publish(Protocol::Tcp, None, 8080, 80);
    site.publish(Protocol::Tcp, None, 8081, 81);
    site.put()?;
    for (ipv6, program) in [(false, "iptables-nft"), (true, "ip6tables-nft")] {
        let restore = format!("printf '{DOCKER}' | {program}-restore");
        site.host.namespace.run(&["sh", "-c", &restore])?;
        let before = rules(&site, program)?;
        let listener = listen(&site.a, inside(ipv6, 2), 80)?;
        let target = SocketAddr::new(outer(ipv6, 1), 8080);
        assert!(is_refused(&site.outside, target));

        let changed = forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?;
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert!(
            forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?.is_empty()
        );
        connect(&site.outside, target, &listener)?;
        let out = listen(&site.outside, outer(ipv6, 9), 70)?;
        connect(&site.a, out.local_addr()?, &out)?;
        let with_ours = rules(&site, program)?;
        assert!(with_ours.contains(&format!("-A FORWARD -i {BRIDGE}")), "{with_ours}");
        assert!(with_ours.contains(&format!("-A FORWARD -o {BRIDGE}")), "{with_ours}");
        // What the administrator refuses is refused still.
        let _refused = listen(&site.a, inside(ipv6, 2), 81)?;
        assert!(is_refused(&site.outside, SocketAddr::new(outer(ipv6, 1), 8081)));

        // A reload that forgets ours.
        site.host.namespace.run(&["sh", "-c", &restore])?;
        assert!(is_refused(&site.outside, target));
        assert_eq!(
            forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?.len(),
            2
        );
        connect(&site.outside, target, &listener)?;

        // What is appended later is not overridden.
        site.host
            .namespace
            .run(&[program, "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP"])?;
        assert_eq!(
            forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?.len(),
            4
        );
        assert!(is_refused(&site.outside, target));
        site.host
            .namespace
            .run(&[program, "-D", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP"])?;

        assert_eq!(forwarding::reconcile(&mut site.host.nft, Passage::Gateway, None)?.len(), 2);
        assert_eq!(rules(&site, program)?, before);
        site.host.namespace.run(&[program, "-P", "FORWARD", "ACCEPT"])?;
        assert!(
            forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?.is_empty()
        );
    }
    Ok(())
}

#[test]
fn n18_chains_that_are_left_alone_are_named() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(true)?;
    assert!(forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?.is_empty());
    assert!(forwarding::obstacles(&mut site.host.nft)?.is_empty());
    site.host.script(
        "add table inet filter; \
         add chain inet filter forward { type filter hook forward priority 0; policy drop; }",
    )?;
    site.host.namespace.run(&["iptables-nft", "-P", "FORWARD", "DROP"])?;
    let named = forwarding::obstacles(&mut site.host.nft)?;
    assert_eq!(named, ["chain forward of table inet filter"]);
    forwarding::reconcile(&mut site.host.nft, Passage::Gateway, Some(BRIDGE))?;
    let theirs = site.host.script("list table inet filter")?;
    assert!(!theirs.contains(BRIDGE), "{theirs}");
    Ok(())
}
