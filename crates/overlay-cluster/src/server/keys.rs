//! `overlay.v1.Keys`.

use overlay_api::v1;
use overlay_types::RequestId;
use tonic::{Request, Response, Status};

use super::{Api, request_id, unexpected};
use crate::state::{Response as Answer, State};

#[tonic::async_trait]
impl v1::keys_server::Keys for Api {
    async fn get_key_status(
        &self,
        request: Request<v1::GetKeyStatusRequest>,
    ) -> Result<Response<v1::GetKeyStatusResponse>, Status> {
        let get = |state: &State| {
            let view = state.view();
            let gossip = view.gossip_keys();
            Ok(v1::GetKeyStatusResponse {
                epochs: view.key_epochs().values().map(Into::into).collect(),
                node_keys: view.node_keys().values().map(Into::into).collect(),
                gossip_current: gossip.map_or(0, |ring| ring.current.get()),
                gossip_epochs: gossip
                    .map(|ring| ring.keys.iter().map(|key| key.epoch.get()).collect())
                    .unwrap_or_default(),
                gossip_deadline: gossip.map_or(0, |ring| ring.deadline.0),
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
        let actions = |state: &State| {
            let (now, fresh) = (self.control.now(), rand::random());
            Ok((policy.start(state, now), policy.start_gossip(state, now, fresh)))
        };
        let (data, gossip) = self.read(None, actions).await?;
        let answer = self.control.write(request, data).await?;
        // The gossip ring turns too. While its last turn is not over, that is turn enough.
        let turn = self.control.write(RequestId::from_u128(rand::random()), gossip).await;
        if let Err(status) = turn {
            tracing::info!(reason = status.message(), "gossip key not rotated now");
        }
        match answer {
            Answer::Epoch(epoch) => {
                Ok(Response::new(v1::RotateKeysResponse { epoch: epoch.epoch.get() }))
            }
            other => Err(unexpected(&other)),
        }
    }
}
