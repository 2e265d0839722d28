//! The way out of this node's containers, and the ports that they publish. Nodes of either dataplane have
//! one, where the host has what it takes.

use overlay_dataplane::{
    Error,
    desired::{PortKind, Uplinks},
    kernel::{GatewayConfig, KernelGateway, capability},
};
use overlay_types::{DataplaneKind, Network, PortSpec};

use super::{
    Missed,
    seat::{Part, Seat},
};

/// A node's gateway, if it has one.
#[derive(Debug)]
pub(crate) struct NodeGateway {
    kernel: Option<KernelGateway>,
    /// Held while anything of it is on the host.
    seat: Option<Seat>,
    /// Another node of this host has it, which was told.
    waits: bool,
    /// Containers get a way out. Without it, what a former run left is removed.
    is_on: bool,
    /// What the host lacks for it.
    lacking: Option<String>,
    /// Firewall chains of others that were told of.
    obstacles: Vec<String>,
}

impl NodeGateway {
    /// The gateway of a node of this kind. Without a configuration it has none. Kernel nodes have what it
    /// takes; of others it is found out.
    pub(crate) fn start(kind: DataplaneKind, config: Option<GatewayConfig>) -> Result<Self, Error> {
        let is_on = config.is_some();
        let tried = is_on && kind == DataplaneKind::User;
        let lacking = tried.then(capability::probe_way_out).unwrap_or_default();
        let lacking = lacking.first().map(ToString::to_string);
        if let Some(reason) = &lacking {
            tracing::info!(reason, "containers on this node get no way out");
        }
        let has_none = kind == DataplaneKind::User && (!is_on || lacking.is_some());
        let kernel = if has_none {
            sweep(config);
            None
        } else {
            Some(KernelGateway::start(config.unwrap_or_default())?)
        };
        // What the run before left is this one's, and not another node's on this host to remove.
        let left = kernel.as_ref().is_some_and(|kernel| kernel.has_left().unwrap_or(true));
        let seat = left.then(|| Seat::take(Part::Gateway).ok()).flatten();
        Ok(Self { kernel, seat, waits: false, is_on, lacking, obstacles: Vec::new() })
    }

    /// Makes the gateway what it shall be. Before a manager was `heard` the view is that of the disk, which
    /// may lack the last second: what the run before left stays as it is. A turn that `reads` looks at all
    /// there is.
    pub(crate) fn turn(&mut self, uplinks: &Uplinks, heard: bool, reads: bool) -> Missed {
        let Some(kernel) = &mut self.kernel else { return Missed::default() };
        // What cannot be looked at is told of by the comparison.
        if !heard && kernel.has_left().unwrap_or(false) {
            return Missed::default();
        }
        let none = Uplinks::default();
        let wanted = if self.is_on { uplinks } else { &none };
        let is_idle = wanted.containers.is_empty();
        if self.seat.is_none() && is_idle {
            return Missed::default();
        }
        if self.seat.is_none() {
            match Seat::take(Part::Gateway) {
                Ok(seat) => (self.seat, self.waits) = (Some(seat), false),
                Err(error) => {
                    if !core::mem::replace(&mut self.waits, true) {
                        tracing::error!(%error, "another node on this host has the gateway of containers");
                    }
                    return without_seat(wanted, &error);
                }
            }
        }
        let outcome = if reads { kernel.reconcile(wanted) } else { kernel.follow(wanted) };
        for change in &outcome.changes {
            tracing::info!(change, "the gateway of containers changes");
        }
        if is_idle && outcome.refused.is_empty() {
            self.seat = None;
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

    /// Removes everything.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        let outcome = self.kernel.as_mut().map(|kernel| kernel.reconcile(&Uplinks::default()));
        let mut refused = outcome.into_iter().flat_map(|outcome| outcome.refused);
        refused.try_for_each(|(_, error)| Err(error))?;
        self.seat = None;
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

/// Another node of this host has the gateway: containers get no way out, and publish nothing.
fn without_seat(uplinks: &Uplinks, error: &std::io::Error) -> Missed {
    let reason = format!(
        "the gateway of this network namespace: {error}; stop the other overlayd, or give it a network \
         namespace of its own"
    );
    let mut missed = Missed::default();
    for (path, uplink) in &uplinks.containers {
        let (publish, rest): (Vec<_>, Vec<_>) =
            uplink.endpoints.iter().partition(|(_, publisher)| !publisher.ports.is_empty());
        missed.failures.extend(publish.into_iter().map(|(id, _)| (*id, reason.clone())));
        if !rest.is_empty() {
            let path = path.display();
            missed.lacks.push(format!("container {path} has no way out: {reason}"));
        }
    }
    missed
}

/// Removes what a gateway left, on a node that has none. What cannot be removed is logged.
pub(crate) fn sweep(config: Option<GatewayConfig>) {
    let swept = || -> anyhow::Result<()> {
        let mut kernel = KernelGateway::start(config.unwrap_or_default())?;
        if !kernel.has_left()? {
            return Ok(());
        }
        // Of another daemon on this host, it is in use.
        let Ok(_seat) = Seat::take(Part::Gateway) else { return Ok(()) };
        let refused = kernel.reconcile(&Uplinks::default()).refused;
        Ok(refused.into_iter().try_for_each(|(_, error)| Err(error))?)
    };
    if let Err(error) = swept() {
        tracing::error!(%error, "a gateway of containers stays on this host");
    }
}
