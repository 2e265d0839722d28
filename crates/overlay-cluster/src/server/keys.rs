//! `overlay.v1.Keys`.

use overlay_api::v1;
use overlay_types::RequestId;
use tonic::{Request, Response, Status};

use super::{Api, request_id, unexpected};
use crate::state::{Response as Answer, State};

impl Api {
    /// Turns the gossip ring. While its last turn is not over, that is turn enough.
    pub(super) async fn turn_gossip_key(&self) {
        let policy = self.control.rotation();
        let turn = |state: &State| policy.start_gossip(state, self.control.now(), rand::random());
        let gossip = self.control.replica().read(turn);
        let turn = self.control.write(RequestId::from_u128(rand::random()), gossip).await;
        if let Err(status) = turn {
            tracing::info!(reason = status.message(), "gossip key not rotated now");
        }
    }
}

#[tonic::async_trait]
impl v1::keys_server::Keys for Api {
    async fn get_key_status(
        &self,
        request: Request<v1::GetKeyStatusRequest>,
    ) -> Result<Response<v1::GetKeyStatusResponse>, Status> {
        let get = |state: &State| {
            let view = state.view();
            let gossip = view.gossip_keys();
            // An active epoch's deadline is a period from when it became so.
            let active = view.cluster().zip(state.active_epoch());
            let active_since = active.map(|(cluster, epoch)| {
                epoch.deadline.0.saturating_sub(cluster.rotation_period.as_millis() as u64)
            });
            Ok(v1::GetKeyStatusResponse {
                epochs: view.key_epochs().values().map(Into::into).collect(),
                node_keys: view.node_keys().values().map(Into::into).collect(),
                gossip_current: gossip.map_or(0, |ring| ring.current.get()),
                gossip_epochs: gossip
                    .map(|ring| ring.keys.iter().map(|key| key.epoch.get()).collect())
                    .unwrap_or_default(),
                gossip_deadline: gossip.map_or(0, |ring| ring.deadline.0),
                active_since: active_since.unwrap_or(0),
            })
        };
        self.read(request.into_inner().consistency, get).await.map(Response::new)
    }

    async fn rotate_keys(
        &self,
        request: Request<v1::RotateKeysRequest>,
    ) -> Result<Response<v1::RotateKeysResponse>, Status> {
        let request = request_id(&request.into_inner().request_id)?;
        let policy = self.control.rotation();
        let data = self.read(None, |state| Ok(policy.start(state, self.control.now()))).await?;
        let answer = self.control.write(request, data).await?;
        self.turn_gossip_key().await;
        match answer {
            Answer::Epoch(epoch) => {
                Ok(Response::new(v1::RotateKeysResponse { epoch: epoch.epoch.get() }))
            }
            other => Err(unexpected(&other)),
        }
    }
}
