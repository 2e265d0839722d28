//! `overlay.v1.Endpoints`: the replicated half. The port of an endpoint is its node's business.

use overlay_api::v1;
use overlay_types::{Endpoint, EndpointId, EndpointSpec, Network};
use tonic::{Request, Response, Status};

use super::{
    Api,
    gate::Caller,
    invalid,
    list::{EndpointList, Listed},
    needed, request_id, unexpected,
};
use crate::state::{Action, Response as Answer, State};

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
        let resolve = |state: &State| {
            let network = state.find_network(&message.network)?.clone();
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
