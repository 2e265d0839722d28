//! A cluster for a test, with containers on it; all of it ends with the test.

use core::{net::IpAddr, time::Duration};
use std::{
    fs,
    path::Path,
    process::Child,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_testkit::{
    hosts::{self, Host, address_v6},
    lab::{self, Namespace},
    until::until,
};
use serde_json::Value;

use crate::{plane::Plane, programs::programs};

/// Longest wait for anything that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long what somebody did to a host may disturb.
pub(crate) const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Where hosts have their folders, in the empty `/run` that a test has.
const FOLDER: &str = "/run/lab";

/// A cluster: a node on each host, from 1.
pub(crate) struct Lab {
    pub(crate) wire: Namespace,
    pub(crate) hosts: Vec<Host>,
    daemons: Vec<Option<Child>>,
    /// What there was on the last host before its daemon was started.
    pub(crate) bare: String,
}

/// How a cluster is made.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    /// The dataplanes of its nodes.
    pub(crate) planes: &'a [Plane],
    /// Whether nodes know each other by IPv6 addresses.
    pub(crate) over_ipv6: bool,
    /// Arguments of `overlayctl init`.
    pub(crate) init: &'a str,
    /// Two clusters, of the first and of the second half of the nodes.
    pub(crate) halves: bool,
    /// Further flags of all daemons.
    pub(crate) flags: &'a str,
}

impl<'a> Cluster<'a> {
    pub(crate) fn of(planes: &'a [Plane]) -> Self {
        Self { planes, over_ipv6: false, init: "", halves: false, flags: "" }
    }

    /// Runs a test in it, where that can be.
    pub(crate) fn run(self, test: impl FnOnce(&mut Lab) -> Result<()> + Send) -> Result<()> {
        if lab::skip() || self.planes.iter().any(|plane| plane.skip()) {
            return Ok(());
        }
        let programs = programs()?;
        lab::isolated(|| {
            let mut lab = self.start(&programs)?;
            test(&mut lab).map_err(|error| error.context(lab.logs()))
        })
    }

    fn start(self, programs: &hosts::Programs) -> Result<Lab> {
        let wire = Namespace::new()?;
        hosts::lay_wire(&wire)?;
        let folder = Path::new(FOLDER);
        let mut lab = Lab { wire, hosts: Vec::new(), daemons: Vec::new(), bare: String::new() };
        for (number, plane) in (1..).zip(self.planes) {
            let netns = Namespace::new()?;
            let mut host = Host::new(number, netns, &lab.wire, folder, programs.clone())?;
            if self.over_ipv6 {
                host.address = address_v6(number).into();
            }
            host.flags = plane.flags();
            host.flags.extend(self.flags.split_whitespace().map(str::to_owned));
            lab.bare = until("the cable has its routes", PATIENCE, || {
                let seen = listing(&host)?;
                ensure!(seen.contains(&format!("local {} dev", address_v6(number))), "{seen}");
                Ok(seen)
            })?;
            lab.hosts.push(host);
            lab.daemons.push(None);
            lab.start(number)?;
        }
        let init: Vec<&str> = self.init.split_whitespace().collect();
        let hosts: Vec<&Host> = lab.hosts.iter().collect();
        let size = if self.halves { hosts.len() / 2 } else { hosts.len() };
        for cluster in hosts.chunks(size) {
            hosts::form(cluster, &init)?;
        }
        Ok(lab)
    }
}

impl Lab {
    pub(crate) fn host(&self, node: u8) -> &Host {
        &self.hosts[usize::from(node) - 1]
    }

    /// Starts a node's daemon, again maybe, and waits until it answers.
    pub(crate) fn start(&mut self, node: u8) -> Result<()> {
        let place = usize::from(node) - 1;
        let host = &self.hosts[place];
        let daemon = self.daemons[place].insert(host.start()?);
        host.until_answers(daemon)
    }

    /// Ends a node's daemon.
    pub(crate) fn stop(&mut self, node: u8, signal: Signal) -> Result<()> {
        let daemon = self.daemons[usize::from(node) - 1].take();
        let mut daemon = daemon.context("it runs")?;
        kill(Pid::from_raw(daemon.id().cast_signed()), signal)?;
        let status =
            until("the daemon ends", PATIENCE, || daemon.try_wait()?.context("it still runs"));
        if status.is_err() {
            daemon.kill()?;
            daemon.wait()?;
        }
        let status = status?;
        ensure!(signal == Signal::SIGKILL || status.success(), "node{node}: {status}");
        Ok(())
    }

    /// Runs `overlayctl` on a node, with arguments that are separated by spaces.
    pub(crate) fn ctl(&self, node: u8, line: &str) -> Result<String> {
        self.host(node).ctl(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `overlayctl` on a node, which must refuse. Returns what it says.
    pub(crate) fn refused(&self, node: u8, line: &str) -> Result<String> {
        match self.ctl(node, line) {
            Ok(said) => bail!("overlayctl {line} is not refused: {said}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// One document of `overlayctl`.
    pub(crate) fn json(&self, node: u8, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ctl(node, &format!("--format json {line}"))?)?)
    }

    /// Waits until the other nodes know how it is with a node, and says when that was.
    #[expect(clippy::disallowed_methods, reason = "a test measures how long a failure disturbs")]
    pub(crate) fn until_known(&self, node: u8, liveness: &str) -> Result<Instant> {
        let name = self.host(node).name();
        for other in (1..=self.hosts.len() as u8).filter(|other| *other != node) {
            until(&format!("{name} is {liveness}"), PATIENCE, || {
                let nodes = self.json(other, "node ls")?;
                let mut nodes = nodes.as_array().context("nodes")?.iter();
                let shown = nodes.find(|node| node["name"] == *name).context("the node")?;
                ensure!(shown["liveness"] == *liveness, "{shown}");
                Ok(())
            })?;
        }
        Ok(Instant::now())
    }

    /// A new container on a node, with an endpoint on a network.
    pub(crate) fn container(&self, node: u8, network: &str) -> Result<Container> {
        Container::on_no_network()?.joined(self, node, network, &[])
    }

    /// The last lines of all logs.
    fn logs(&self) -> String {
        let tail = |host: &Host| {
            let log = host.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("openraft")).collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            format!("--- {}\n{tail}\n", host.name())
        };
        self.hosts.iter().map(tail).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for host in &self.hosts {
            hosts::end_holder(&host.folder);
        }
    }
}

/// A container: a namespace with endpoints.
pub(crate) struct Container {
    pub(crate) netns: Namespace,
    /// Id of the endpoint that was attached last.
    pub(crate) endpoint: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: String,
}

impl Container {
    pub(crate) fn on_no_network() -> Result<Self> {
        let (endpoint, mac) = (String::new(), String::new());
        Ok(Self { netns: Namespace::new()?, endpoint, addresses: Vec::new(), mac })
    }

    /// The container with an endpoint on a network: `eth0`, which it had no device of before.
    pub(crate) fn joined(
        mut self,
        lab: &Lab,
        node: u8,
        network: &str,
        flags: &[&str],
    ) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.endpoint = attach(lab.host(node), network, &name, &self.netns.path(), flags)?;
        let shown = lab.json(node, &format!("endpoint inspect {}", self.endpoint))?;
        let shown = &shown[0];
        let addresses = shown["addresses"].as_array().context("addresses")?.iter();
        self.addresses = addresses
            .map(|address| Ok(address.as_str().context("an address")?.parse()?))
            .collect::<Result<_>>()?;
        shown["mac"].as_str().context("a MAC address")?.clone_into(&mut self.mac);
        Ok(self)
    }

    /// Waits until it has its device, with its addresses.
    pub(crate) fn until_plugged(&self) -> Result<()> {
        until("the endpoint is plugged in", PATIENCE, || {
            let shown = self.netns.ip("-brief address show dev eth0")?;
            let there = self.addresses.iter().all(|a| shown.contains(&format!("{a}/")));
            ensure!(there, "{shown}");
            Ok(())
        })
    }

    /// Its first address.
    pub(crate) fn address(&self) -> IpAddr {
        self.addresses[0]
    }
}

/// Attaches, again if the daemon did not wait long enough: for the first container the kernel loads modules,
/// which takes a virtual machine longer.
fn attach(host: &Host, network: &str, name: &str, netns: &Path, flags: &[&str]) -> Result<String> {
    let attached = host.attach(network, name, netns, flags);
    match attached {
        Err(error) if format!("{error:#}").contains("in time; it was detached again") => {
            host.attach(network, name, netns, flags)
        }
        attached => attached,
    }
}

/// What there is on a host that a daemon could have left: devices, addresses, routes, rules, sockets,
/// and namespaces of networks. The cable's link-local address is not told: the kernel gives it when
/// it has found out that it is nobody else's. Nor is the number that the host has for a container's
/// namespace: that goes with the namespace.
pub(crate) fn listing(host: &Host) -> Result<String> {
    let netns = &host.netns;
    let mut told = String::new();
    for line in [
        "-brief link show",
        "-brief -4 address show",
        "-brief -6 address show scope global",
        "route show table all",
        "-6 route show table all",
        "rule show",
    ] {
        told += &netns.ip(line)?;
    }
    told += &netns.run(&["nft", "list", "ruleset"])?;
    told += &netns.run(&["ss", "--no-header", "--udp", "--listening", "--numeric"])?;
    let mut lines: Vec<String> =
        told.lines().filter(|line| !line.contains("fe80::")).map(str::to_owned).collect();
    let networks = fs::read_dir(host.folder.join("netns"));
    for entry in networks.into_iter().flatten() {
        lines.push(entry?.path().display().to_string());
    }
    Ok(lines.join("\n"))
}
