//! The way out of this node's containers, and the ports that they publish. Nodes of either dataplane have
//! one, where the host has what it takes.

use core::fmt::Display;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use overlay_dataplane::{
    Error,
    desired::{PortKind, Uplink, Uplinks},
    kernel::{GatewayConfig, KernelGateway, NetNs, capability},
};
use overlay_types::{Network, PortSpec};

use super::{
    Missed,
    seat::{Part, Seat},
};

/// Why the gateway cannot be had beside another node.
const TAKEN: &str = "another overlayd of this network namespace has the gateway; stop it, or give it a \
                     network namespace of its own";
const ANOTHERS: &str = "containers of another node on this host have their way out here; start that node \
                        again, or have it leave";

/// A node's gateway, if it has one.
#[derive(Debug)]
pub(crate) struct NodeGateway {
    kernel: Option<KernelGateway>,
    /// Held while anything of it may be on the host.
    seat: Option<Seat>,
    trace: GatewayTrace,
    /// Why containers cannot have a way out, as it was told.
    told: Option<String>,
    /// Containers get a way out. Without it, what a former run left is removed.
    is_on: bool,
    /// What the host lacks for it.
    lacking: Option<String>,
    /// Firewall chains of others that were told of.
    obstacles: Vec<String>,
}

impl NodeGateway {
    /// The gateway of a node. Without a configuration, and where the host lacks what it takes, it has none.
    pub(crate) fn start(trace: GatewayTrace, config: Option<GatewayConfig>) -> Result<Self, Error> {
        let is_on = config.is_some();
        let lacking = is_on.then(capability::probe_way_out).unwrap_or_default();
        let lacking = lacking.first().map(ToString::to_string);
        let kernel = if is_on && lacking.is_none() {
            Some(KernelGateway::start(config.unwrap_or_default())?)
        } else {
            sweep(&trace, config);
            None
        };
        let (told, obstacles) = (None, Vec::new());
        let mut gateway = Self { kernel, seat: None, trace, told, is_on, lacking, obstacles };
        // A run before may have left something, of which the first turn that hears a manager makes what it
        // shall be. Where another node has the gateway it is not this one's.
        if gateway.kernel.is_some() && gateway.trace.0.exists() {
            let _ = gateway.sit();
        }
        Ok(gateway)
    }

    /// Makes the gateway what it shall be. Before a manager was `heard` the view is that of the disk, which
    /// may lack the last second: what the run before left stays as it is. A turn that `reads` looks at all
    /// there is.
    pub(crate) fn turn(&mut self, uplinks: &Uplinks, heard: bool, reads: bool) -> Missed {
        let concerns =
            |(path, uplink): (&PathBuf, &Uplink)| publishes(uplink) || is_elsewhere(path);
        let is_idle = !self.is_on || !uplinks.containers.iter().any(concerns);
        if is_idle && self.seat.is_none() {
            return Missed::default();
        }
        if let Err(reason) = self.sit() {
            if self.told.as_ref() != Some(&reason) {
                tracing::error!(reason, "containers get no way out, and publish no ports");
            }
            let missed = without(uplinks, &reason);
            self.told = Some(reason);
            return missed;
        }
        self.told = None;
        let Some(kernel) = &mut self.kernel else { return Missed::default() };
        // What cannot be looked at is told of by the comparison.
        if !heard && kernel.has_left().unwrap_or(false) {
            return Missed::default();
        }
        let outcome = if reads { kernel.reconcile(uplinks) } else { kernel.follow(uplinks) };
        for change in &outcome.changes {
            tracing::info!(change, "the gateway of containers changes");
        }
        if is_idle && heard && outcome.refused.is_empty() {
            self.rise();
        }
        let mut missed = Missed::default();
        for (endpoints, error) in outcome.refused {
            tracing::error!(%error, ?endpoints, "the gateway of containers is not as it shall be");
            missed.failures.extend(endpoints.into_iter().map(|id| (id, error.to_string())));
        }
        if !outcome.changes.is_empty() && !is_idle {
            self.tell_obstacles();
        }
        missed
    }

    /// Has the seat, or says why not.
    fn sit(&mut self) -> Result<(), String> {
        if let Some(lacking) = &self.lacking {
            return Err(format!("this node's host lacks {lacking}"));
        }
        if let (None, Some(kernel)) = (&self.seat, &self.kernel) {
            self.seat = Some(self.trace.sit(kernel)?);
        }
        Ok(())
    }

    /// Leaves the seat to others.
    fn rise(&mut self) {
        if self.seat.is_some() {
            self.trace.forget();
            self.seat = None;
        }
    }

    /// Chains of others in which containers' traffic may end.
    fn tell_obstacles(&mut self) {
        let found = self.kernel.as_mut().map(KernelGateway::obstacles);
        let Some(Ok(found)) = found.filter(|found| found.as_ref().ok() != Some(&self.obstacles))
        else {
            return;
        };
        for chain in &found {
            tracing::warn!(
                chain,
                "this chain drops what it does not accept, containers' traffic too"
            );
        }
        self.obstacles = found;
    }

    /// Removes everything that is this node's.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        if let (Some(_), Some(kernel)) = (&self.seat, &mut self.kernel) {
            let refused = kernel.reconcile(&Uplinks::default()).refused;
            refused.into_iter().try_for_each(|(_, error)| Err(error))?;
            self.rise();
        }
        Ok(())
    }

    /// Why these ports of an endpoint cannot be published here, if there are any.
    pub(crate) fn refusal(
        &self,
        published: &[PortSpec],
        network: &Network,
        port: &PortKind,
    ) -> Option<String> {
        let first = published.first()?;
        let has_netns =
            matches!(port, PortKind::Veth { .. } | PortKind::Tap { netns: Some(_), .. });
        let reason = if !self.is_on {
            "this node has no gateway bridge; set --gateway-bridge"
        } else if let Some(lacking) = &self.lacking {
            return Some(format!("publish {first}: this node's host lacks {lacking}"));
        } else if network.spec.internal {
            "its network is internal and has no way in"
        } else if !has_netns {
            "it has no interface in a container; what is in the host's own namespace answers as it is"
        } else {
            return None;
        };
        Some(format!("publish {first}: {reason}"))
    }
}

/// The file that tells that there may be something of this node's gateway on the host.
#[derive(Debug)]
pub(crate) struct GatewayTrace(pub(crate) PathBuf);

impl GatewayTrace {
    fn sit(&self, kernel: &KernelGateway) -> Result<Seat, String> {
        let seat = Seat::take(Part::Gateway).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => TAKEN.to_owned(),
            _ => format!("the gateway's seat cannot be had: {error}"),
        })?;
        let failed = |error: &dyn Display| format!("the gateway cannot be had: {error}");
        if !self.0.exists() && kernel.has_left().map_err(|error| failed(&error))? {
            return Err(ANOTHERS.to_owned());
        }
        fs::write(&self.0, "").map_err(|error| failed(&error))?;
        Ok(seat)
    }

    fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a file stays");
        }
    }
}

/// Whether anything in a container publishes ports. In the host's own namespace that is refused.
fn publishes(uplink: &Uplink) -> bool {
    uplink.endpoints.values().any(|publisher| !publisher.ports.is_empty())
}

/// Whether a path leads to a namespace, and not to the host's own.
fn is_elsewhere(path: &Path) -> bool {
    let number = |netns: io::Result<NetNs>| netns.and_then(|netns| netns.id()).ok();
    let found = number(NetNs::open(path));
    found.is_some() && found != number(NetNs::own())
}

/// What it means that containers get no way out, and publish nothing.
fn without(uplinks: &Uplinks, reason: &str) -> Missed {
    let mut missed = Missed::default();
    for (path, uplink) in &uplinks.containers {
        let (publish, rest): (Vec<_>, Vec<_>) =
            uplink.endpoints.iter().partition(|(_, publisher)| !publisher.ports.is_empty());
        missed.failures.extend(publish.into_iter().map(|(id, _)| (*id, reason.to_owned())));
        if !rest.is_empty() && is_elsewhere(path) {
            let path = path.display();
            missed.lacks.push(format!("container {path} has no way out: {reason}"));
        }
    }
    missed
}

/// Removes what this node's gateway left. What cannot be removed is logged.
pub(crate) fn sweep(trace: &GatewayTrace, config: Option<GatewayConfig>) {
    let swept = || -> anyhow::Result<()> {
        if !trace.0.exists() {
            return Ok(());
        }
        let mut kernel = KernelGateway::start(config.unwrap_or_default())?;
        let _seat = trace.sit(&kernel).map_err(anyhow::Error::msg)?;
        let refused = kernel.reconcile(&Uplinks::default()).refused;
        refused.into_iter().try_for_each(|(_, error)| Err(error))?;
        trace.forget();
        Ok(())
    };
    if let Err(error) = swept() {
        tracing::error!(%error, "a gateway of containers stays on this host");
    }
}
