//! The way out of this node's containers, and the ports that they publish. Nodes whose plain networks
//! are in the kernel have one.

use std::collections::BTreeMap;

use overlay_dataplane::{
    Error,
    desired::{PortKind, Uplinks},
    kernel::{GatewayConfig, KernelGateway},
};
use overlay_types::{DataplaneKind, EndpointId, Network, PortSpec};

use super::choice;

/// A node's gateway, if it has one.
#[derive(Debug)]
pub(crate) struct NodeGateway {
    kernel: Option<KernelGateway>,
    /// Containers get a way out. Without it, what a former run left is removed.
    is_on: bool,
    /// Firewall chains of others that were told of.
    obstacles: Vec<String>,
}

impl NodeGateway {
    /// The gateway of a node of this kind. Without a configuration it has none.
    pub(crate) fn start(kind: DataplaneKind, config: Option<GatewayConfig>) -> Result<Self, Error> {
        let is_on = config.is_some();
        let kernel = match kind {
            DataplaneKind::Kernel => Some(KernelGateway::start(config.unwrap_or_default())?),
            DataplaneKind::User => {
                sweep(kind, config);
                None
            }
        };
        Ok(Self { kernel, is_on, obstacles: Vec::new() })
    }

    /// Makes the gateway what it shall be. Says of which endpoints something is missing, and why. Before
    /// a manager was `heard` the view is that of the disk, which may lack the last second: what the run
    /// before left stays as it is. A turn that `reads` looks at all there is.
    pub(crate) fn turn(
        &mut self,
        uplinks: &Uplinks,
        heard: bool,
        reads: bool,
    ) -> BTreeMap<EndpointId, String> {
        let mut failures = BTreeMap::new();
        let Some(kernel) = &mut self.kernel else { return failures };
        // What cannot be looked at is told of by the comparison.
        if !heard && kernel.has_left().unwrap_or(false) {
            return failures;
        }
        let none = Uplinks::default();
        let wanted = if self.is_on { uplinks } else { &none };
        let outcome = if reads { kernel.reconcile(wanted) } else { kernel.follow(wanted) };
        for change in &outcome.changes {
            tracing::info!(change, "the gateway of containers changes");
        }
        for (endpoints, error) in outcome.refused {
            tracing::error!(%error, ?endpoints, "the gateway of containers is not as it shall be");
            failures.extend(endpoints.into_iter().map(|id| (id, error.to_string())));
        }
        if !outcome.changes.is_empty() && !uplinks.containers.is_empty() {
            self.tell_obstacles();
        }
        failures
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
        refused.try_for_each(|(_, error)| Err(error))
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
        let reason = if self.kernel.is_none() {
            "this node has the dataplane in user space, which publishes no ports of endpoints"
        } else if !self.is_on {
            "this node has no gateway bridge; set --gateway-bridge"
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

/// Removes what a gateway of a kernel dataplane left, on a node that has none. What cannot be removed is
/// logged.
pub(crate) fn sweep(kind: DataplaneKind, config: Option<GatewayConfig>) {
    let swept = || -> anyhow::Result<()> {
        let mut kernel = KernelGateway::start(config.unwrap_or_default())?;
        if !kernel.has_left()? {
            return Ok(());
        }
        // Of another daemon on this host, it is in use.
        let seat = (kind == DataplaneKind::User).then(choice::take_seat).transpose();
        let Ok(_seat) = seat else { return Ok(()) };
        let refused = kernel.reconcile(&Uplinks::default()).refused;
        Ok(refused.into_iter().try_for_each(|(_, error)| Err(error))?)
    };
    if let Err(error) = swept() {
        tracing::error!(%error, "a gateway of containers stays on this host");
    }
}
