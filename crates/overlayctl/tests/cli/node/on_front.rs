//! What is on the network `front`: an endpoint, and the node that it is attached on.

use std::pin::Pin;

use overlay_api::v1::{
    self, endpoints_server::Endpoints, nodes_server::Nodes, services_server::Services,
};
use tonic::{Request, Response, Status};

use super::ID_FRONT;

/// Lists of what is on `front`.
pub(super) struct OnFront;

/// Calls that the binary under test does not make, as `async_trait` writes them: it does not look into
/// macros.
macro_rules! not_called {
    ($($name:ident($request:ident) -> $response:ident;)*) => {$(
        fn $name<'a, 'async_trait>(
            &'a self,
            _: Request<v1::$request>,
        ) -> Answer<'async_trait, v1::$response>
        where
            'a: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("no test calls it")) })
        }
    )*};
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

#[tonic::async_trait]
impl Endpoints for OnFront {
    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let networks = request.into_inner().filter.unwrap_or_default().networks;
        let endpoint = v1::Endpoint {
            id: "9zz".into(),
            network: ID_FRONT.into(),
            node: "8yy".into(),
            name: "db".into(),
            addresses: vec!["10.0.1.129".into()],
            mac: "02:42:0a:00:01:81".into(),
            ..v1::Endpoint::default()
        };
        let endpoints = if networks == [ID_FRONT] { vec![endpoint] } else { Vec::new() };
        Ok(Response::new(v1::ListEndpointsResponse { endpoints, ..Default::default() }))
    }

    not_called! {
        attach_endpoint(AttachEndpointRequest) -> AttachEndpointResponse;
        get_endpoint(GetEndpointRequest) -> GetEndpointResponse;
        set_readiness(SetReadinessRequest) -> SetReadinessResponse;
        detach_endpoint(DetachEndpointRequest) -> DetachEndpointResponse;
    }
}

#[tonic::async_trait]
impl Nodes for OnFront {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let networks = request.into_inner().filter.unwrap_or_default().networks;
        let node = v1::Node {
            id: "8yy".into(),
            name: "one".into(),
            data_path: "192.0.2.1".into(),
            ..v1::Node::default()
        };
        let status = v1::NodeStatus { node: Some(node), ..Default::default() };
        let nodes = if networks == [ID_FRONT] { vec![status] } else { Vec::new() };
        Ok(Response::new(v1::ListNodesResponse { nodes, ..Default::default() }))
    }

    not_called! {
        get_node(GetNodeRequest) -> GetNodeResponse;
        update_node(UpdateNodeRequest) -> UpdateNodeResponse;
        remove_node(RemoveNodeRequest) -> RemoveNodeResponse;
    }
}

#[tonic::async_trait]
impl Services for OnFront {
    async fn list_services(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        Ok(Response::new(v1::ListServicesResponse::default()))
    }

    not_called! {
        create_service(CreateServiceRequest) -> CreateServiceResponse;
        update_service(UpdateServiceRequest) -> UpdateServiceResponse;
        get_service(GetServiceRequest) -> GetServiceResponse;
        remove_service(RemoveServiceRequest) -> RemoveServiceResponse;
    }
}
