//! Nodes whose daemons are down, on kernels with ESP: encrypted networks go on, and come to an end when they
//! shall.

use core::time::Duration;
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_testkit::{hosts::Host, lab, until::until};
use rstest::rstest;

use crate::{
    leave::same,
    plane::{KERNEL_PAIR, MIXED_PAIR, Plane},
    rotation::under_load,
    setup::{BACK_WITHIN, Cluster, Container, PATIENCE, listing},
    talk::Talk,
    web::vip,
};

/// Longest time until keys of a run before are not in use any more: ten seconds where both nodes were started
/// again, from when the managers answer.
const HANDED_OVER: Duration = Duration::from_mins(1);

/// Between datagrams: what is sealed at full speed in an emulated kernel leaves a daemon no time to start.
const PAUSE: Duration = Duration::from_millis(20);

const WORD: &[u8] = b"heard while nobody looks after it";

/// The processes on a host that have the socket of ESP.
fn holders(host: &Host) -> Result<Vec<Pid>> {
    host.netns.processes("overlay-esp")
}

/// The only one.
fn holder(host: &Host) -> Result<Pid> {
    let holders = holders(host)?;
    let [only] = holders[..] else { bail!("processes that hold the socket of ESP: {holders:?}") };
    Ok(only)
}

fn nobody_holds(host: &Host) -> Result<()> {
    let holders = holders(host)?;
    ensure!(holders.is_empty(), "processes that hold the socket of ESP still: {holders:?}");
    Ok(())
}

/// The associations of a node.
fn spis(host: &Host) -> Result<BTreeSet<String>> {
    let shown = host.netns.ip("xfrm state")?;
    let words: Vec<&str> = shown.split_whitespace().collect();
    let spis = words.windows(2).filter(|pair| pair[0] == "spi").map(|pair| pair[1].to_owned());
    Ok(spis.collect())
}

/// Daemons of kernel nodes end in each way, one alone and all at once, and come back: nothing is lost.
fn goes_on(planes: &[Plane]) -> Result<()> {
    let kernels: Vec<u8> =
        (1..).zip(planes).filter(|(_, plane)| **plane == Plane::Kernel).map(|(n, _)| n).collect();
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable --opt encrypted net")?;
        let ends = [lab.container(1, "net")?, lab.container(2, "net")?];
        ends.iter().try_for_each(Container::until_plugged)?;
        lab.ctl(1, "service create --name web --network net")?;
        let task = Container::on_no_network()?.joined(lab, 2, "net", &["--service", "web"])?;
        task.until_plugged()?;
        // To the other end itself, and by a virtual address.
        let talks =
            [Talk::between(&ends[0], &ends[1], WORD)?, Talk::by(vip(lab)?, &ends[0], &task, WORD)?];
        let until_answered = || talks.iter().try_for_each(Talk::until_answered);
        until_answered()?;
        let alone = kernels.iter().map(|node| vec![*node]);
        for down in alone.chain((kernels.len() > 1).then(|| kernels.clone())) {
            for signal in [Signal::SIGKILL, Signal::SIGTERM] {
                let told = under_load((&ends[0], &ends[1]), PAUSE, || {
                    let before = down.iter().map(|node| spis(lab.host(*node)));
                    let before: Vec<_> = before.collect::<Result<_>>()?;
                    down.iter().try_for_each(|node| lab.stop(*node, signal))?;
                    until_answered()?;
                    down.iter().try_for_each(|node| lab.start(*node))?;
                    for (node, before) in down.iter().zip(&before) {
                        until("nothing of the run before is in use", HANDED_OVER, || {
                            let now = spis(lab.host(*node))?;
                            ensure!(now.len() >= 2 && now.is_disjoint(before), "{now:?}");
                            Ok(())
                        })?;
                    }
                    until_answered()
                });
                let told = told.with_context(|| format!("nodes {down:?} went by {signal}"))?;
                #[expect(clippy::print_stderr, reason = "how much it has proved")]
                {
                    eprintln!("daemons of nodes {down:?} went by {signal} and came back: {told}");
                }
            }
        }
        Ok(())
    })
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn d05_headless_encrypted_networks_go_on_without_their_daemons_with_esp(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    goes_on(&planes)
}

/// What keeps ESP coming in is put back when it was ended by hand, and gone when nobody needs it.
#[test]
fn d06_d07_r09_what_keeps_esp_coming_in_comes_and_goes_with_encrypted_networks_with_esp()
-> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    Cluster::of(&KERNEL_PAIR).run(|lab| {
        nobody_holds(lab.host(2)).context("there is no encrypted network yet")?;
        lab.ctl(1, "network create --attachable --opt encrypted net")?;
        let ends = [lab.container(1, "net")?, lab.container(2, "net")?];
        ends.iter().try_for_each(Container::until_plugged)?;
        let first = until("the socket is held", PATIENCE, || holder(lab.host(2)))?;
        let talk = Talk::between(&ends[0], &ends[1], WORD)?;
        talk.until_answered()?;
        kill(first, Signal::SIGKILL)?;
        talk.until_answered()?;
        until("another one holds it", BACK_WITHIN, || {
            let second = holder(lab.host(2))?;
            ensure!(second != first, "the first one still does");
            Ok(())
        })?;
        lab.stop(2, Signal::SIGKILL)?;
        talk.until_answered()?;
        lab.start(2)?;
        talk.until_answered()?;
        drop(talk);

        for (end, node) in ends.iter().zip([1, 2]) {
            lab.ctl(node, &format!("endpoint detach {}", end.endpoint))?;
        }
        until("nobody holds it any more", PATIENCE, || nobody_holds(lab.host(2)))?;
        // It leaves with an endpoint that nobody detached.
        let last = lab.container(2, "net")?;
        last.until_plugged()?;
        until("the socket is held", PATIENCE, || holder(lab.host(2)))?;
        lab.ctl(2, "leave --force")?;
        lab.stop(2, Signal::SIGTERM)?;
        let host = lab.host(2);
        until("nobody holds it any more", PATIENCE, || nobody_holds(host))?;
        let left = host.netns.ip("xfrm state")? + &host.netns.ip("xfrm policy")?;
        ensure!(left.is_empty(), "{left}");
        same(&lab.bare, &listing(host)?)?;
        for trace in ["socket.esp", "socket.ipsec"] {
            ensure!(!host.folder.join(trace).exists(), "{trace} is left");
        }
        Ok(())
    })
}
