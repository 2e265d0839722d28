//! What somebody does by hand is put back.

#![expect(clippy::disallowed_methods, reason = "times what comes back")]

use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use overlay_api::v1;
use overlay_testkit::lab::Namespace;

use crate::{
    calls::until,
    hosts::{Hosts, dual, of, reaches, with_hosts},
};

const NONE: Option<&str> = None;

/// What comes back by the comparison of every two seconds.
const SOON: Duration = Duration::from_secs(5);
/// Shorter than the time between two comparisons.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[test]
fn d06_links_and_rules_that_are_removed_by_hand_come_back() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "kernel"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        hosts.create(dual("net")).await;
        let (c, d) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        a.attach("net", "eth0", of(&c)).await.unwrap();
        let there = b.attach("net", "eth0", of(&d)).await.unwrap();
        reaches(&c, &there).await;

        let mut namespaces = a.namespaces().into_iter();
        let network = namespaces.find(|path| !path.ends_with("mesh")).unwrap();
        let inside = format!("--net={}", network.display());
        for link in ["vxlan0", "br0"] {
            a.netns.run(&["nsenter", &inside, "ip", "link", "del", link]).unwrap();
            let begun = Instant::now();
            reaches(&c, &there).await;
            assert!(begun.elapsed() < SOON, "{link} was gone for {:?}", begun.elapsed());
        }
        c.ip("link del eth0").unwrap();
        let begun = Instant::now();
        reaches(&c, &there).await;
        assert!(begun.elapsed() < SOON, "eth0 was gone for {:?}", begun.elapsed());
        a.daemon.until_logged("somebody changed the dataplane");

        // Tables are listed in the order in which they were made.
        let rules = || {
            let text = a.netns.run(&["nft", "--stateless", "list", "ruleset"]).unwrap();
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        let before = until("all tables are there", async || {
            let rules = rules();
            ["overlay_admission", "overlay_mesh"].iter().all(|t| rules.contains(t)).then_some(rules)
        })
        .await;
        for _ in 0..5 {
            a.netns.run(&["nft", "flush", "ruleset"]).unwrap();
            let begun = Instant::now();
            until("the rules are back", async || (rules() == before).then_some(())).await;
            assert!(begun.elapsed() < AT_ONCE, "rules were gone for {:?}", begun.elapsed());
        }
    });
}

#[test]
fn d06_an_endpoint_whose_namespace_ended_is_detached() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "user"]).await;
        hosts.create(dual("net")).await;
        for host in &hosts.hosts {
            let container = Namespace::new().unwrap();
            let process = container.spawn(&["sleep", "600"]).unwrap();
            let pid = v1::endpoint_port::Namespace::Pid(process.id());
            host.attach("net", "eth0", pid).await.unwrap();
            // Descriptors have numbers that are used again; a path of its own has not.
            let other = std::path::Path::new("/run/other");
            std::fs::write(other, "").unwrap();
            mount(Some(&Namespace::new().unwrap().path()), other, NONE, MsFlags::MS_BIND, NONE)
                .unwrap();
            let path = v1::endpoint_port::Namespace::Netns("/run/other".into());
            host.attach("net", "eth0", path).await.unwrap();
            assert_eq!(host.list().await.len(), 2);
            drop(process);
            until("that of the process is detached", async || {
                (host.list().await.len() == 1).then_some(())
            })
            .await;
            // The namespace itself is there still, and its interface has gone.
            assert!(container.ip("link show eth0").is_err());
            // As `ip netns delete` does: the daemon may look at it this moment.
            umount2(other, MntFlags::MNT_DETACH).unwrap();
            until("the other one, too", async || host.list().await.is_empty().then_some(())).await;
        }
    });
}
