//! Endpoints of this node: attached in the cluster first, then plugged in here.

use core::time::Duration;

use overlay_api::{
    status::{Reason, with_reason},
    v1::{self, endpoints_client::EndpointsClient},
};
use overlay_dataplane::user::ports::MemoryPort;
use overlay_types::{EndpointId, Network, PortSpec, SpecError, View};
use tonic::{Code, Status};

use crate::{
    NodeError, NodeHandle, level,
    member::Member,
    ports::{self, Port},
    reconcile::Progress,
};

/// How long an attach waits for the node to hear of its endpoint. The watch takes milliseconds; a
/// manager that dies in between costs two seconds.
const WATCH_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the dataplane then, which takes milliseconds, too; but a host that is
/// overloaded, or whose kernel loads modules for the first network, takes seconds.
const PLUG_PATIENCE: Duration = Duration::from_secs(30);

impl NodeHandle {
    /// Attaches an endpoint to this node and waits until it is plugged in. Without a port in the
    /// request it is a port in memory, for [`take_memory_port`](Self::take_memory_port). In a network
    /// namespace of its own it gets a name server, which the answer's `resolv_conf` leads to.
    pub async fn attach(
        &self,
        mut request: v1::AttachEndpointRequest,
    ) -> Result<v1::AttachEndpointResponse, NodeError> {
        let member = self.member()?;
        let port = ports::parse(request.port.take())?;
        let own = member.identity().node.to_string();
        let spec = request.spec.get_or_insert_default();
        if spec.role() == v1::EndpointRole::Mesh {
            let reason = "each node makes its own place in the routing mesh";
            return Err(invalid("role", "mesh", reason));
        }
        if let Some(health) = spec.health.as_ref().filter(|_| port == Port::Memory) {
            let reason = "the node asks through the endpoint's interface, and it gets none";
            return Err(invalid("health", &health.check, reason));
        }
        if spec.node.is_empty() {
            spec.node.clone_from(&own);
        }
        if spec.node != own {
            let reason = "it is not this node; ask that one to attach its endpoint";
            return Err(invalid("node", &spec.node, reason));
        }
        member.viewer.read(|view| level::check_endpoint(view, spec))?;
        let mut client = EndpointsClient::new(member.managers.channel().await?);
        let mut answer = client.attach_endpoint(request).await?.into_inner();
        let id: EndpointId = answer
            .endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.id.parse().ok())
            .ok_or_else(|| Status::internal("the manager's answer has no endpoint"))?;
        let encrypted = answer.network.as_ref().and_then(|n| n.spec.as_ref()).map(|s| s.encrypted);
        let refusal = member.shared.refusal(&port, encrypted.unwrap_or_default());
        let refusal = refusal.or_else(|| publish_refusal(&member, &port, &answer));
        let plugged = match refusal {
            Some(reason) => Err(reason),
            None => plug(&member, id, port).await,
        };
        if let Err(reason) = plugged {
            // What keeps it from being forgotten keeps it from being detached, too.
            let _ = forget_port(&member, id);
            return Err(match self.detach(&id.to_string()).await {
                Ok(()) => NodeError::Port(reason),
                Err(error) => {
                    NodeError::StillAttached { endpoint: id, reason, error: error.to_string() }
                }
            });
        }
        answer.resolv_conf = member.shared.resolvers.resolv_conf(id).unwrap_or_default();
        Ok(answer)
    }

    /// Detaches an endpoint, by name, id or unique prefix.
    pub async fn detach(&self, endpoint: &str) -> Result<(), NodeError> {
        let endpoint = endpoint.to_owned();
        self.detach_as(v1::DetachEndpointRequest { endpoint, ..Default::default() }).await
    }

    pub(crate) async fn detach_as(
        &self,
        mut request: v1::DetachEndpointRequest,
    ) -> Result<(), NodeError> {
        let member = self.member()?;
        let mut client = EndpointsClient::new(member.managers.channel().await?);
        let endpoint = request.endpoint.clone();
        let look = v1::GetEndpointRequest { endpoint, consistency: None };
        let found = match client.get_endpoint(look).await {
            Ok(answer) => answer.into_inner().endpoint,
            // Detached by the same request, maybe: the manager knows.
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(status.into()),
        };
        if let Some(endpoint) = &found {
            request.endpoint.clone_from(&endpoint.id);
        }
        client.detach_endpoint(request).await?;
        if let Some(id) = found.and_then(|endpoint| endpoint.id.parse().ok()) {
            forget_port(&member, id)?;
            // Whoever detaches may want the name of its interface for the next. One that cannot be
            // unplugged now is unplugged later.
            let mut progress = member.reconciler.progress();
            let gone = progress.wait_for(|progress| !progress.plugged.contains(&id));
            let _ = tokio::time::timeout(WATCH_PATIENCE, gone).await;
        }
        Ok(())
    }

    /// The endpoint's side of its memory port. There is one; `None` when it was taken.
    pub fn take_memory_port(&self, endpoint: EndpointId) -> Result<Option<MemoryPort>, NodeError> {
        Ok(self.member()?.shared.take_memory_port(endpoint))
    }

    /// Plugs in an endpoint that is attached to this node already, with a new port in memory. After
    /// a restart: ports in memory end with the process, endpoints do not.
    pub async fn replug(&self, endpoint: EndpointId) -> Result<MemoryPort, NodeError> {
        let member = self.member()?;
        let own = member.identity().node;
        let encrypted = |view: &View| {
            let here = view.endpoints().get(&endpoint).filter(|e| e.node == own)?;
            Some(view.networks().get(&here.network).is_some_and(|n| n.spec.encrypted))
        };
        let Some(encrypted) = member.viewer.read(encrypted) else {
            let message = format!("endpoint {endpoint}: none of this node's");
            return Err(with_reason(Reason::NotFound, message).into());
        };
        if let Some(reason) = member.shared.refusal(&Port::Memory, encrypted) {
            return Err(NodeError::Unplugged(reason));
        }
        plug(&member, endpoint, Port::Memory).await.map_err(NodeError::Unplugged)?;
        member.shared.take_memory_port(endpoint).ok_or_else(|| {
            let message = format!("endpoint {endpoint}: it is plugged in");
            with_reason(Reason::NotPluggedIn, message).into()
        })
    }

    /// Whether an endpoint of this node is plugged into its dataplane.
    pub fn is_plugged(&self, endpoint: EndpointId) -> Result<bool, NodeError> {
        Ok(self.member()?.reconciler.progress().borrow().plugged.contains(&endpoint))
    }
}

/// Why its ports cannot be published here, if it has any.
fn publish_refusal(
    member: &Member,
    port: &Port,
    answer: &v1::AttachEndpointResponse,
) -> Option<String> {
    let published = published(answer).iter().map(|port| PortSpec::try_from(port.clone()));
    let published: Vec<PortSpec> = published.collect::<Result<_, _>>().ok()?;
    let network = Network::try_from(answer.network.clone()?).ok()?;
    member.shared.publish_refusal(port, &published, &network)
}

/// What an endpoint publishes here. A manager of a release before says so of the endpoint only.
fn published(answer: &v1::AttachEndpointResponse) -> &[v1::PortSpec] {
    let own = answer.endpoint.as_ref().map_or(&[][..], |endpoint| endpoint.ports.as_slice());
    if answer.published.is_empty() { own } else { &answer.published }
}

fn invalid(field: &'static str, value: &str, reason: &str) -> NodeError {
    overlay_api::status::invalid(&SpecError::new(field, value, reason)).into()
}

/// Has the endpoint plugged in, and waits for it.
async fn plug(member: &Member, id: EndpointId, port: Port) -> Result<(), String> {
    let mut progress = member.reconciler.progress();
    member.shared.ports.put(id, port).map_err(|error| error.to_string())?;
    let mut revision = member.viewer.revision();
    let knows = || member.viewer.read(|view| view.endpoints().contains_key(&id));
    // A view that comes now wakes the loop by itself; a turn before it would be in its way.
    if knows() {
        member.reconciler.wake();
    }
    if tokio::time::timeout(WATCH_PATIENCE, revision.wait_for(|_| knows())).await.is_err() {
        return Err("the node did not hear of it from its manager in time".to_owned());
    }
    let done = progress.wait_for(|progress| settled(progress, id));
    match tokio::time::timeout(PLUG_PATIENCE, done).await {
        Ok(Ok(progress)) => progress.failures.get(&id).cloned().map_or(Ok(()), Err),
        Ok(Err(_)) => Err("the node stops".to_owned()),
        Err(_) => Err(format!(
            "the node's dataplane is at other work for {} s; look at the load of the host, and at \
             the node's log",
            PLUG_PATIENCE.as_secs()
        )),
    }
}

fn settled(progress: &Progress, id: EndpointId) -> bool {
    progress.plugged.contains(&id) || progress.failures.contains_key(&id)
}

fn forget_port(member: &Member, id: EndpointId) -> Result<(), NodeError> {
    let removed = member.shared.ports.remove(id);
    member.reconciler.wake();
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r08_ports_are_known_whatever_release_answers() {
        let port = |number: u32| v1::PortSpec { target: number, ..Default::default() };
        let endpoint = v1::Endpoint { ports: vec![port(80)], ..Default::default() };
        let old = v1::AttachEndpointResponse { endpoint: Some(endpoint), ..Default::default() };
        assert_eq!(published(&old), [port(80)]);
        let new = v1::AttachEndpointResponse { published: vec![port(81)], ..old };
        assert_eq!(published(&new), [port(81)]);
        assert!(published(&v1::AttachEndpointResponse::default()).is_empty());
    }
}
