//! **sealed** and **no-entry**: nothing of an encrypted network is ever in clear on a host's devices, and
//! nothing that comes in clear enters one, whatever is done to the host meanwhile.
//!
//! ```text
//!  container 1 ◄── talk ──► container 2     a word in every datagram
//!      node1 ──── wire ──── node2
//!      watch    stranger    watch           looks for the word; sends frames in clear
//! ```
//!
//! Each test shows that its watch and its stranger can: on a plain network the word is seen, and what
//! the stranger sends arrives.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::{
    hosts::{Host, address_v4},
    lab,
    until::until,
};
use rstest::rstest;

use crate::{
    ear::Ear,
    forge::Forged,
    isolation::honest,
    plane::{KERNEL_PAIR, KERNELS, MIXED, MIXED_PAIR, Plane, USERS},
    probe::ping,
    rotation::rotate,
    setup::{Cluster, Container, Lab, PATIENCE},
    stranger::Stranger,
    talk::Talk,
    watch::Watch,
};

/// What containers say.
const WORD: &[u8] = b"a word that nobody else may hear";
/// UDP ports of VXLAN: of plain networks, and of encrypted ones.
const PORTS: [u16; 2] = [4789, 4788];

/// Networks of both kinds with containers on nodes 1 and 2, and what sends frames in clear.
struct Scene {
    secret: [Container; 2],
    plain: [Container; 2],
    ears: [Ear; 2],
    stranger: Stranger,
    /// As node 2 would send it, from the plain network's container there to the one on node 1.
    honest: Forged,
    /// The same on the encrypted network, to the port of plain ones.
    clear: Forged,
    words: u32,
}

impl Scene {
    fn set(lab: &Lab) -> Result<Self> {
        lab.ctl(1, "network create --attachable plain")?;
        lab.ctl(1, "network create --attachable --opt encrypted secret")?;
        let secret = [lab.container(1, "secret")?, lab.container(2, "secret")?];
        let plain = [lab.container(1, "plain")?, lab.container(2, "plain")?];
        secret.iter().chain(&plain).try_for_each(Container::until_plugged)?;
        let ears = [Ear::in_namespace(&secret[0].netns)?, Ear::in_namespace(&plain[0].netns)?];
        Ok(Self {
            honest: honest(lab, &plain[1], &plain[0], "plain")?,
            clear: honest(lab, &secret[1], &secret[0], "secret")?,
            stranger: Stranger::on_wire(lab)?,
            secret,
            plain,
            ears,
            words: 0,
        })
    }

    /// Has frames in clear sent into the encrypted network: from a member, from a node that is not on
    /// it, and from a host of no cluster, to both ports. They carry words that begin with "entry".
    fn force(&self) -> Result<()> {
        let nodes = [address_v4(2), address_v4(3), self.stranger.address];
        for node in nodes {
            for vxlan_port in PORTS {
                let forged = Forged { node, vxlan_port, ..self.clear.clone() };
                self.stranger.send(&forged.packet(b"entry")?)?;
                // A station that it knows from elsewhere.
                let other = Forged { mac: self.honest.mac, ip: self.honest.ip, ..forged };
                self.stranger.send(&other.packet(b"entry by another station")?)?;
            }
        }
        Ok(())
    }

    /// Waits until what was sent before had its chance: something honest arrives on the plain network.
    /// Refuses what has entered the encrypted one.
    fn nothing_entered(&mut self) -> Result<()> {
        self.words += 1;
        let word = format!("honest {}", self.words);
        let [secret, plain] = &mut self.ears;
        plain.until_heard(word.as_bytes(), || {
            self.stranger.send(&self.honest.packet(word.as_bytes())?)
        })?;
        ensure!(!secret.has_heard(b"entry")?, "a frame in clear enters the encrypted network");
        Ok(())
    }
}

/// Something done to a host. What is taken comes back by itself.
type Theft = (&'static str, &'static [&'static str]);

const THEFTS: [Theft; 6] = [
    ("the socket of ESP is killed", &["ss --kill --all --udp sport = :4500"]),
    ("ip xfrm policy flush", &["ip xfrm policy flush"]),
    ("ip xfrm state flush", &["ip xfrm state flush"]),
    ("both", &["ip xfrm state flush", "ip xfrm policy flush"]),
    ("both, the other way round", &["ip xfrm policy flush", "ip xfrm state flush"]),
    ("nft flush ruleset", &["nft flush ruleset"]),
];

fn take(host: &Host, commands: &[&str]) -> Result<()> {
    commands.iter().try_for_each(|command| {
        let words: Vec<&str> = command.split(' ').collect();
        host.netns.run(&words).map(drop)
    })
}

/// Whether node 1 has its policies.
fn is_enforced(host: &Host) -> Result<()> {
    let policies = host.netns.ip("xfrm policy")?;
    ensure!(policies.matches("dport 4788").count() == 2, "policies: {policies}");
    Ok(())
}

fn sealed(planes: &[Plane], esp_in_kernel: bool) -> Result<()> {
    Cluster { flags: "--rotation-drain 2", ..Cluster::of(planes) }.run(|lab| {
        let watch = |lab: &Lab, node| Watch::over(&lab.host(node).netns, WORD);
        let watches = [watch(lab, 1)?, watch(lab, 2)?];
        let sealed = |when: &str| {
            watches.iter().try_for_each(Watch::all_was_sealed).with_context(|| when.to_owned())
        };
        // Before anybody has an association with anybody.
        lab.ctl(1, "network create --attachable --opt encrypted first")?;
        let firsts = [lab.container(1, "first")?, lab.container(2, "first")?];
        let talk = Talk::between(&firsts[0], &firsts[1], WORD)?;
        talk.until_answered()?;
        talk.end()?;
        sealed("at the first attach")?;

        let mut scene = Scene::set(lab)?;
        let talk = Talk::between(&scene.secret[0], &scene.secret[1], WORD)?;
        talk.until_answered()?;
        scene.force()?;
        rotate(lab, planes.len())?;
        talk.until_answered()?;
        scene.nothing_entered()?;
        sealed("in a rotation")?;
        for node in [1, 2] {
            lab.stop(node, Signal::SIGKILL)?;
            scene.force()?;
            talk.until_asked()?;
            lab.start(node)?;
            scene.force()?;
            talk.until_answered().with_context(|| format!("node{node} was killed"))?;
            scene.nothing_entered()?;
            sealed("after a daemon was killed")?;
        }
        for (what, commands) in THEFTS {
            if !esp_in_kernel && commands.iter().any(|command| command.contains("xfrm")) {
                continue;
            }
            for _ in 0..3 {
                take(lab.host(1), commands)?;
                scene.force()?;
                talk.until_asked()?;
                scene.force()?;
                talk.until_answered().context(what)?;
            }
            if esp_in_kernel {
                until("the policies come back", PATIENCE, || is_enforced(lab.host(1)))?;
            }
            scene.nothing_entered().context(what)?;
            sealed(what)?;
        }
        drop(talk);

        // The watch sees what is in clear.
        let talk = Talk::between(&scene.plain[0], &scene.plain[1], WORD)?;
        talk.until_answered()?;
        talk.end()?;
        for watch in watches {
            ensure!(watch.end()?.clear > 0, "the watch sees nothing");
        }
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn sealed_no_entry_e04_nothing_leaves_or_enters_in_clear(#[case] planes: [Plane; 3]) -> Result<()> {
    sealed(&planes, false)
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn sealed_no_entry_e04_nothing_leaves_or_enters_in_clear_with_esp(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    sealed(&planes, true)
}

/// Rules of an administrator, in front of all others, that let VXLAN in.
const ADMITTING: &str = "add table inet admin
add chain inet admin input { type filter hook input priority -400; policy accept; }
add rule inet admin input udp dport { 4788, 4789 } accept
add chain inet admin output { type filter hook output priority -400; policy accept; }
add rule inet admin output udp dport { 4788, 4789 } accept";

/// Docker's rule stood behind the administrator's, which let frames in clear through.
fn cve_28840(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        let rules = |host: &Host| -> Result<()> {
            ADMITTING.lines().try_for_each(|rule| host.netns.run(&["nft", rule]).map(drop))
        };
        rules(lab.host(1))?;
        let mut scene = Scene::set(lab)?;
        ping(&scene.secret[0].netns, scene.secret[1].address())?;
        scene.force()?;
        scene.nothing_entered()?;
        // Also rules that come later than ours.
        take(lab.host(1), &["nft delete table inet admin"])?;
        rules(lab.host(1))?;
        scene.force()?;
        scene.nothing_entered()
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn e04_cve_2023_28840_an_administrators_accept_lets_nothing_in(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    cve_28840(&planes)
}

#[test]
fn e04_cve_2023_28840_an_administrators_accept_lets_nothing_in_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    cve_28840(&KERNEL_PAIR)
}

/// Docker's rule that had frames sealed was missing where iptables lacked a module.
fn cve_28841(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        let watch = Watch::over(&lab.host(1).netns, WORD)?;
        let scene = Scene::set(lab)?;
        let talk = Talk::between(&scene.secret[0], &scene.secret[1], WORD)?;
        talk.until_answered()?;
        for _ in 0..50 {
            take(lab.host(1), &["nft flush ruleset"])?;
        }
        talk.until_answered()?;
        watch.all_was_sealed()?;
        drop(talk);
        let talk = Talk::between(&scene.plain[0], &scene.plain[1], WORD)?;
        talk.until_answered()?;
        ensure!(watch.end()?.clear > 0, "the watch sees nothing");
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn e04_cve_2023_28841_without_firewall_rules_all_is_sealed(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    cve_28841(&planes)
}

#[test]
fn e04_cve_2023_28841_without_firewall_rules_all_is_sealed_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    cve_28841(&KERNEL_PAIR)
}

/// Docker's rules came with the first peer: a network with one endpoint took in what was in clear.
fn cve_28842(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        let mut scene = Scene::set(lab)?;
        // What a network has before there is a second endpoint anywhere, and after there was one.
        lab.ctl(1, "network create --attachable --opt encrypted alone")?;
        let alone = lab.container(1, "alone")?;
        alone.until_plugged()?;
        let shown = lab.json(1, "network inspect alone")?;
        let vni = shown[0]["vni"].as_u64().context("a VNI")? as u32;
        let to_alone = honest(lab, &scene.secret[1], &alone, "alone")?;
        let mut ear = Ear::in_namespace(&alone.netns)?;
        for detached in [false, true] {
            if detached {
                let second = lab.container(2, "alone")?;
                ping(&alone.netns, second.address())?;
                lab.ctl(2, &format!("endpoint detach {}", second.endpoint))?;
            }
            for node in [address_v4(2), address_v4(3), scene.stranger.address] {
                for vxlan_port in PORTS {
                    let forged = Forged { node, vxlan_port, vni, ..to_alone.clone() };
                    scene.stranger.send(&forged.packet(b"entry")?)?;
                }
            }
            scene.nothing_entered()?;
            ensure!(!ear.has_heard(b"entry")?, "a frame in clear enters");
        }
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn e04_cve_2023_28842_a_network_with_one_endpoint_lets_nothing_in(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    cve_28842(&planes)
}

#[test]
fn e04_cve_2023_28842_a_network_with_one_endpoint_lets_nothing_in_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    cve_28842(&KERNEL_PAIR)
}

/// Docker's policies named port 4789 whatever the cluster's was: nothing was sealed, nothing arrived.
fn moby_45635(planes: &[Plane]) -> Result<()> {
    // The second one is that of encrypted networks by default.
    for port in [5789, 4788] {
        let init = format!("--data-path-port {port}");
        Cluster { init: &init, ..Cluster::of(planes) }.run(|lab| {
            let watch = Watch::over_all(&lab.wire, WORD)?;
            lab.ctl(1, "network create --attachable --opt encrypted secret")?;
            lab.ctl(1, "network create --attachable plain")?;
            let last = planes.len() as u8;
            let secret = [lab.container(1, "secret")?, lab.container(last, "secret")?];
            let talk = Talk::between(&secret[0], &secret[1], WORD)?;
            talk.until_answered()?;
            watch.all_was_sealed()?;
            drop(talk);
            let plain = [lab.container(1, "plain")?, lab.container(last, "plain")?];
            let talk = Talk::between(&plain[0], &plain[1], WORD)?;
            talk.until_answered()?;
            ensure!(watch.end()?.clear > 0, "the watch sees nothing");
            Ok(())
        })?;
    }
    Ok(())
}

#[rstest]
#[case::user(USERS)]
#[case::mixed(MIXED)]
fn e04_moby_45635_encryption_works_with_any_data_path_port(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    moby_45635(&planes)
}

#[test]
fn e04_moby_45635_encryption_works_with_any_data_path_port_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    moby_45635(&MIXED_PAIR)
}
