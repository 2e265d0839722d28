//! Daemons that end, hosts that come back, nodes that leave: what stays, and what does not.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use overlay_testkit::until::until;
use rstest::rstest;

use crate::{
    plane::{KERNELS, MIXED, Plane, USERS},
    probe::ping,
    setup::{Cluster, PATIENCE, listing},
};

/// However a daemon ends, the others go on, and it comes back with its endpoints.
fn ends(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        let containers: Vec<_> =
            (1..=3).map(|node| lab.container(node, "net")).collect::<Result<_>>()?;
        let (one, two, three) = (&containers[0], &containers[1], &containers[2]);
        for to in [two, three] {
            ping(&one.netns, to.address())?;
        }
        ping(&two.netns, three.address())?;
        // The view on its disk is older than this one.
        let _one_more = lab.container(2, "net")?;
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            lab.stop(2, signal)?;
            if planes[1] == Plane::Kernel {
                // The kernel goes on with what it was told.
                ping(&one.netns, two.address())?;
                ping(&two.netns, three.address())?;
            }
            ping(&one.netns, three.address())?;
            ping(&three.netns, one.address())?;
            lab.start(2)?;
            two.until_plugged()?;
            for other in [one, three] {
                ping(&other.netns, two.address())?;
                ping(&two.netns, other.address())?;
            }
        }
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn d05_c15_a_daemon_that_ended_comes_back_with_its_endpoints(
    #[case] planes: [Plane; 3],
) -> Result<()> {
    ends(&planes)
}

/// A host is as it was when what was made is removed, and when its node has left.
fn leaves(planes: &[Plane]) -> Result<()> {
    Cluster::of(planes).run(|lab| {
        // A kernel node has its part of the routing mesh for as long as it is a member.
        let idle = until("the node is whole", PATIENCE, || {
            let seen = listing(lab.host(3))?;
            ensure!(planes[2] == Plane::User || seen.contains("overlay_mesh"), "no mesh yet");
            same(&seen, &listing(lab.host(3))?)?;
            Ok(seen)
        })?;
        lab.ctl(1, "network create --attachable one")?;
        lab.ctl(1, "network create --attachable --ipv6 --subnet fd66::/64 two")?;
        let here = [lab.container(3, "one")?, lab.container(3, "two")?];
        let there = [lab.container(1, "one")?, lab.container(1, "two")?];
        for (near, far) in here.iter().zip(&there) {
            ping(&near.netns, far.address())?;
        }
        for container in here.iter().chain(&there) {
            lab.ctl(1, &format!("endpoint detach {}", container.endpoint))?;
        }
        lab.ctl(1, "network rm one two")?;
        until("the host is as it was without networks", PATIENCE, || {
            same(&idle, &listing(lab.host(3))?)
        })?;
        for container in &here {
            let devices = container.netns.ip("-brief link show")?;
            ensure!(!devices.contains("eth0"), "{devices}");
        }

        // It leaves with an endpoint that nobody detached.
        lab.ctl(1, "network create --attachable one")?;
        let (here, there) = (lab.container(3, "one")?, lab.container(1, "one")?);
        ping(&here.netns, there.address())?;
        lab.ctl(3, "leave --force")?;
        lab.stop(3, Signal::SIGTERM)?;
        same(&lab.bare, &listing(lab.host(3))?)?;
        let devices = here.netns.ip("-brief link show")?;
        ensure!(!devices.contains("eth0"), "{devices}");
        Ok(())
    })
}

/// Refuses two listings that differ, with the lines that do.
pub(crate) fn same(before: &str, after: &str) -> Result<()> {
    let only = |a: &str, b: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(str::to_owned).collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    ensure!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
    Ok(())
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
fn d07_r09_removal_and_leaving_leave_nothing(#[case] planes: [Plane; 3]) -> Result<()> {
    leaves(&planes)
}
