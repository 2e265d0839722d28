//! `overlay.v1.Reports`: what a node says about itself.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use overlay_api::{convert, v1};
use overlay_types::{
    EndpointId, Epoch, FeatureLevel, HostReport, Node, NodeId, RequestId, SpecError,
};
use tonic::{Request, Response, Status};

use super::{Api, gate::Caller, invalid, needed, unexpected};
use crate::state::{Action, HealthReport, MoveNode, Response as Answer};

impl Api {
    async fn report(&self, action: Action) -> Result<(), Status> {
        let request = RequestId::from_u128(rand::random());
        self.control.write(request, action).await.map(drop)
    }

    /// Nodes that are not where the state says, or are nowhere.
    fn away(&self) -> BTreeSet<NodeId> {
        let away = |node: &Node| match self.liveness(node.id) {
            v1::Liveness::Dead | v1::Liveness::Left => true,
            v1::Liveness::Alive | v1::Liveness::Unknown => {
                let heard = self.control.whereabouts().heard(node.id);
                heard.is_some_and(|heard| heard != node.gossip.ip())
            }
        };
        self.control.replica().read(|state| {
            let nodes = state.view().nodes().values();
            nodes.filter(|node| away(node)).map(|node| node.id).collect()
        })
    }
}

fn node(text: &str) -> Result<NodeId, Status> {
    convert::parse("node", text).map_err(invalid)
}

#[tonic::async_trait]
impl v1::reports_server::Reports for Api {
    async fn publish_key(
        &self,
        request: Request<v1::PublishKeyRequest>,
    ) -> Result<Response<v1::PublishKeyResponse>, Status> {
        let node = node(&request.get_ref().node)?;
        Caller::of(&request)?.speaks_for(node)?;
        let request = request.into_inner();
        let public = convert::bytes32("public", &request.public).map_err(invalid)?;
        let epoch = Epoch::new(request.epoch);
        self.report(Action::PublishNodeKey { node, epoch, public }).await?;
        Ok(Response::new(v1::PublishKeyResponse {}))
    }

    async fn report_addresses(
        &self,
        request: Request<v1::ReportAddressesRequest>,
    ) -> Result<Response<v1::ReportAddressesResponse>, Status> {
        let node = Caller::of(&request)?.node();
        let request = request.into_inner();
        let socket = |field, text: &str| convert::parse::<SocketAddr>(field, text).map_err(invalid);
        let data_path = convert::parse::<IpAddr>("data_path", &request.data_path);
        let to = MoveNode {
            node,
            control: socket("control", &request.control)?,
            gossip: socket("gossip", &request.gossip)?,
            data_path: data_path.map_err(invalid)?,
            vacated: self.away(),
        };
        let request = RequestId::from_u128(rand::random());
        match self.control.write(request, Action::MoveNode(to)).await? {
            Answer::Node(node) => {
                Ok(Response::new(v1::ReportAddressesResponse { node: Some((&node).into()) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn report_ready(
        &self,
        request: Request<v1::ReportReadyRequest>,
    ) -> Result<Response<v1::ReportReadyResponse>, Status> {
        let node = node(&request.get_ref().node)?;
        Caller::of(&request)?.speaks_for(node)?;
        let request = request.into_inner();
        let public = convert::bytes32("public", &request.public).map_err(invalid)?;
        let epoch = Epoch::new(request.epoch);
        self.report(Action::ReportEpochReady { node, epoch, public }).await?;
        Ok(Response::new(v1::ReportReadyResponse {}))
    }

    async fn report_health(
        &self,
        request: Request<v1::ReportHealthRequest>,
    ) -> Result<Response<v1::ReportHealthResponse>, Status> {
        let node = node(&request.get_ref().node)?;
        Caller::of(&request)?.speaks_for(node)?;
        let request = request.into_inner();
        let count = request.passing.len() + request.failing.len();
        if count > HealthReport::MAX_ENDPOINTS {
            let reason = format!("at most {}; send several", HealthReport::MAX_ENDPOINTS);
            return Err(invalid(SpecError::new("endpoints", count, reason)));
        }
        let ids = |field, texts: &[String]| {
            let ids = texts.iter().map(|text| convert::parse(field, text));
            ids.collect::<Result<BTreeSet<EndpointId>, _>>().map_err(invalid)
        };
        let passing = ids("passing", &request.passing)?;
        let failing = ids("failing", &request.failing)?;
        self.report(Action::ReportHealth(HealthReport { node, passing, failing })).await?;
        Ok(Response::new(v1::ReportHealthResponse {}))
    }

    async fn announce_level(
        &self,
        request: Request<v1::AnnounceLevelRequest>,
    ) -> Result<Response<v1::AnnounceLevelResponse>, Status> {
        let node = node(&request.get_ref().node)?;
        Caller::of(&request)?.speaks_for(node)?;
        let level = FeatureLevel::new(request.into_inner().level);
        self.report(Action::AnnounceLevel { node, level }).await?;
        Ok(Response::new(v1::AnnounceLevelResponse {}))
    }

    async fn announce_capabilities(
        &self,
        request: Request<v1::AnnounceCapabilitiesRequest>,
    ) -> Result<Response<v1::AnnounceCapabilitiesResponse>, Status> {
        let node = node(&request.get_ref().node)?;
        Caller::of(&request)?.speaks_for(node)?;
        let request = request.into_inner();
        let capabilities = needed("capabilities", request.capabilities)?;
        let host = HostReport::try_from(needed("host", request.host)?).map_err(invalid)?;
        self.report(Action::AnnounceCapabilities {
            node,
            capabilities: capabilities.try_into().map_err(invalid)?,
            host: Box::new(host),
        })
        .await?;
        Ok(Response::new(v1::AnnounceCapabilitiesResponse {}))
    }
}
