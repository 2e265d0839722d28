//! `overlay.v1.Endpoints`: the replicated half. The port of an endpoint is its node's business.

use overlay_api::{convert::readiness, v1};
use overlay_types::{Endpoint, EndpointId, EndpointSpec, Network};
use tonic::{Request, Response, Status};

use super::{
    Api,
    gate::Caller,
    invalid,
    list::{EndpointList, Listed},
    needed, request_id, unexpected,
};
use crate::state::{Action, Kind, Rejection, Response as Answer, State};

impl Api {
    /// A spec whose network and service are given by name, id or prefix.
    async fn endpoint_spec(
        &self,
        message: Option<v1::EndpointSpec>,
    ) -> Result<(EndpointSpec, Network), Status> {
        let mut message = needed("spec", message)?;
        if message.node.is_empty() {
            message.node = self.control.node().to_string();
        }
        let mesh = message.role() == v1::EndpointRole::Mesh && message.network.is_empty();
        let resolve = |state: &State| {
            let network = if mesh {
                let none = Rejection::NotFound { kind: Kind::Network, wanted: "--ingress".into() };
                state.ingress().ok_or(none)?.clone()
            } else {
                state.find_network(&message.network)?.clone()
            };
            message.network = network.id.to_string();
            if !message.service.is_empty() {
                message.service = state.find_service(&message.service)?.id.to_string();
            }
            message.node = state.find_node(&message.node)?.id.to_string();
            Ok(network)
        };
        let network = self.read(None, resolve).await?;
        Ok((message.try_into().map_err(invalid)?, network))
    }

    /// The ports that an endpoint publishes on its node.
    fn published_by(&self, endpoint: &Endpoint) -> Vec<v1::PortSpec> {
        let Some(service) = endpoint.service else {
            return endpoint.ports().iter().map(Into::into).collect();
        };
        self.control.replica().read(|state| {
            let service = state.view().services().get(&service);
            service.into_iter().flat_map(|s| s.spec.host_ports()).map(Into::into).collect()
        })
    }
}

#[tonic::async_trait]
impl v1::endpoints_server::Endpoints for Api {
    async fn attach_endpoint(
        &self,
        request: Request<v1::AttachEndpointRequest>,
    ) -> Result<Response<v1::AttachEndpointResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let (spec, network) = self.endpoint_spec(message.spec).await?;
        caller.speaks_for(spec.node)?;
        let id = EndpointId::from_u128(rand::random());
        let action = Action::AttachEndpoint { id, spec };
        match self.control.write(request_id(&message.request_id)?, action).await? {
            Answer::Endpoint(endpoint) => Ok(Response::new(v1::AttachEndpointResponse {
                endpoint: Some((&endpoint).into()),
                published: self.published_by(&endpoint),
                network: Some((&network).into()),
                // Its node knows.
                resolv_conf: String::new(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let request = request.into_inner();
        let consistency = request.consistency;
        let list = EndpointList::new(request).map_err(invalid)?;
        let listed = self.read(consistency, |state| list.of(state)).await?;
        let Listed { objects: endpoints, next: next_page_token } = listed;
        Ok(Response::new(v1::ListEndpointsResponse { endpoints, next_page_token }))
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::GetEndpointResponse>, Status> {
        let request = request.into_inner();
        let get = |state: &State| state.find_endpoint(&request.endpoint).map(Into::into);
        let endpoint = Some(self.read(request.consistency, get).await?);
        Ok(Response::new(v1::GetEndpointResponse { endpoint }))
    }

    async fn set_readiness(
        &self,
        request: Request<v1::SetReadinessRequest>,
    ) -> Result<Response<v1::SetReadinessResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let find = |state: &State| state.find_endpoint(&message.endpoint).map(|e| (e.id, e.node));
        let (id, node) = self.read(None, find).await?;
        caller.speaks_for(node)?;
        let to = readiness("readiness", message.readiness).map_err(invalid)?;
        let action = Action::SetReadiness { id, to };
        match self.control.write(request_id(&message.request_id)?, action).await? {
            Answer::Endpoint(endpoint) => {
                let endpoint = Some((&endpoint).into());
                Ok(Response::new(v1::SetReadinessResponse { endpoint, ..Default::default() }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn detach_endpoint(
        &self,
        request: Request<v1::DetachEndpointRequest>,
    ) -> Result<Response<v1::DetachEndpointResponse>, Status> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let write = request_id(&message.request_id)?;
        let find = |state: &State| state.find_endpoint(&message.endpoint).cloned();
        if let Some(Endpoint { id, node, .. }) = self.find_to_remove(write, find).await? {
            caller.speaks_for(node)?;
            self.control.write(write, Action::DetachEndpoint(id)).await?;
        }
        Ok(Response::new(v1::DetachEndpointResponse {}))
    }
}
