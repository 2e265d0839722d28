//! `overlay.v1.Networks`.

use overlay_api::{convert, v1};
use overlay_types::{NetworkId, NetworkSpec, Revision, Subnet};
use tonic::{Request, Response, Status};

use super::{
    Api, invalid,
    list::{Listed, NetworkList},
    needed, request_id, unexpected,
};
use crate::{
    control::rejection_status,
    state::{Action, Kind, Response as Answer, State, Wanted},
};

fn spec(message: Option<v1::NetworkSpec>) -> Result<NetworkSpec, Status> {
    needed("spec", message)?.try_into().map_err(invalid)
}

fn host_routes(texts: &[String]) -> Result<Vec<Subnet>, Status> {
    let routes = texts.iter().map(|text| convert::parse("host_routes", text));
    routes.collect::<Result<_, _>>().map_err(invalid)
}

/// A network, and how much of it is used.
fn details(state: &State, wanted: &str) -> Result<v1::GetNetworkResponse, crate::state::Rejection> {
    let network = state.find_network(wanted)?;
    let usage = state.usage(network.id)?;
    let usage = usage.iter().map(|usage| v1::SubnetUsage {
        subnet: usage.subnet.to_string(),
        used: usage.used.to_string(),
        free: usage.free.to_string(),
        reserved: usage.reserved.to_string(),
        quarantined: usage.quarantined.to_string(),
    });
    Ok(v1::GetNetworkResponse { network: Some(network.into()), usage: usage.collect() })
}

#[tonic::async_trait]
impl v1::networks_server::Networks for Api {
    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::CreateNetworkResponse>, Status> {
        let request = request.into_inner();
        let action = Action::CreateNetwork {
            id: NetworkId::from_u128(rand::random()),
            spec: spec(request.spec)?,
            host_routes: host_routes(&request.host_routes)?,
        };
        match self.control.write(request_id(&request.request_id)?, action).await? {
            Answer::Network(network) => {
                let network = Some((&network).into());
                Ok(Response::new(v1::CreateNetworkResponse { network }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn update_network(
        &self,
        request: Request<v1::UpdateNetworkRequest>,
    ) -> Result<Response<v1::UpdateNetworkResponse>, Status> {
        let request = request.into_inner();
        let spec = spec(request.spec)?;
        let id = |state: &State| state.find_network(&request.network).map(|network| network.id);
        let action = Action::UpdateNetwork {
            id: self.read(None, id).await?,
            based_on: Revision::new(request.changed_at),
            spec,
            host_routes: host_routes(&request.host_routes)?,
        };
        match self.control.write(request_id(&request.request_id)?, action).await? {
            Answer::Network(network) => {
                let network = Some((&network).into());
                Ok(Response::new(v1::UpdateNetworkResponse { network }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn list_networks(
        &self,
        request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let request = request.into_inner();
        let consistency = request.consistency;
        let list = NetworkList::new(request).map_err(invalid)?;
        let listed = self.read(consistency, |state| list.of(state)).await?;
        let Listed { objects: networks, next: next_page_token } = listed;
        Ok(Response::new(v1::ListNetworksResponse { networks, next_page_token }))
    }

    async fn get_network(
        &self,
        request: Request<v1::GetNetworkRequest>,
    ) -> Result<Response<v1::GetNetworkResponse>, Status> {
        let request = request.into_inner();
        let get = |state: &State| details(state, &request.network);
        self.read(request.consistency, get).await.map(Response::new)
    }

    async fn remove_network(
        &self,
        request: Request<v1::RemoveNetworkRequest>,
    ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
        let request = request.into_inner();
        let write = request_id(&request.request_id)?;
        let wanted =
            Wanted::new(Kind::Network, request.network).map_err(|r| rejection_status(&r))?;
        self.control.write(write, Action::RemoveNetwork(wanted)).await?;
        Ok(Response::new(v1::RemoveNetworkResponse {}))
    }
}
