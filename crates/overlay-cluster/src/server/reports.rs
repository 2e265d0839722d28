//! `overlay.v1.Reports`: what a node says about itself.

use overlay_api::{convert, v1};
use overlay_types::{Epoch, FeatureLevel, NodeId, RequestId};
use tonic::{Request, Response, Status};

use super::{Api, gate::Caller, invalid};
use crate::state::Action;

impl Api {
    async fn report(&self, action: Action) -> Result<(), Status> {
        let request = RequestId::from_u128(rand::random());
        self.control.write(request, action).await.map(drop)
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
}
