//! Whole lists, however many pages they have.

use tonic::{Status, transport::Channel};

use crate::v1::{
    self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
    nodes_client::NodesClient, services_client::ServicesClient,
};

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $client:ident.$call:ident($request:ident) -> $item:ident;)*) => {$(
        $(#[$doc])*
        pub async fn $name(
            channel: Channel,
            mut request: v1::$request,
        ) -> Result<Vec<v1::$item>, Status> {
            let mut client = $client::new(channel);
            let mut all = Vec::new();
            loop {
                let page = client.$call(request.clone()).await?.into_inner();
                all.extend(page.$name);
                if page.next_page_token.is_empty() {
                    return Ok(all);
                }
                if page.next_page_token == request.page_token {
                    return Err(Status::internal("the list does not go on: the same page again"));
                }
                request.page_token = page.next_page_token;
            }
        }
    )*};
}

lists! {
    /// All nodes that fit the request's filter, from its page on.
    nodes: NodesClient.list_nodes(ListNodesRequest) -> NodeStatus;
    /// All networks that fit the request's filter, from its page on.
    networks: NetworksClient.list_networks(ListNetworksRequest) -> Network;
    /// All services that fit the request's filter, from its page on.
    services: ServicesClient.list_services(ListServicesRequest) -> Service;
    /// All endpoints that fit the request's filter, from its page on.
    endpoints: EndpointsClient.list_endpoints(ListEndpointsRequest) -> Endpoint;
}
