//! `overlay.v1.LocalNode`: this node and its cluster.

use core::pin::Pin;

use bytes::Bytes;
use futures::{Stream, stream};
use overlay_api::{status::invalid_field, v1};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{Local, to_the_end};

/// Bytes of a backup in one message; tonic takes up to 4 MiB.
const PIECE: usize = 1 << 20;
/// The largest backup that is read: four times that of 200 000 endpoints, the most that a cluster is
/// made for.
const MAX_BACKUP: usize = 1 << 29;

type Pieces = Pin<Box<dyn Stream<Item = Result<v1::BackupClusterResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::local_node_server::LocalNode for Local {
    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        let handle = self.0.clone();
        let init = async move { handle.init(request.into_inner()).await };
        Ok(Response::new(to_the_end(init).await?))
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let handle = self.0.clone();
        let join = async move { handle.join(request.into_inner()).await };
        Ok(Response::new(to_the_end(join).await?))
    }

    async fn leave_cluster(
        &self,
        request: Request<v1::LeaveClusterRequest>,
    ) -> Result<Response<v1::LeaveClusterResponse>, Status> {
        let handle = self.0.clone();
        let leave = async move { handle.leave(request.into_inner()).await };
        Ok(Response::new(to_the_end(leave).await?))
    }

    async fn get_join_tokens(
        &self,
        _request: Request<v1::GetJoinTokensRequest>,
    ) -> Result<Response<v1::GetJoinTokensResponse>, Status> {
        Ok(Response::new(self.0.tokens()?))
    }

    async fn rotate_join_token(
        &self,
        request: Request<v1::RotateJoinTokenRequest>,
    ) -> Result<Response<v1::RotateJoinTokenResponse>, Status> {
        Ok(Response::new(self.0.rotate_token(request.into_inner()).await?))
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::UpdateClusterResponse>, Status> {
        Ok(Response::new(self.0.update(request.into_inner()).await?))
    }

    async fn unlock_cluster(
        &self,
        request: Request<v1::UnlockClusterRequest>,
    ) -> Result<Response<v1::UnlockClusterResponse>, Status> {
        let handle = self.0.clone();
        let key = Zeroizing::new(request.into_inner().unlock_key);
        to_the_end(async move { handle.unlock(&key).await }).await?;
        Ok(Response::new(v1::UnlockClusterResponse {}))
    }

    async fn get_unlock_key(
        &self,
        _request: Request<v1::GetUnlockKeyRequest>,
    ) -> Result<Response<v1::GetUnlockKeyResponse>, Status> {
        let unlock_key = self.0.unlock_key().await?;
        Ok(Response::new(v1::GetUnlockKeyResponse { unlock_key }))
    }

    async fn rotate_unlock_key(
        &self,
        request: Request<v1::RotateUnlockKeyRequest>,
    ) -> Result<Response<v1::RotateUnlockKeyResponse>, Status> {
        let unlock_key = self.0.rotate_unlock_key(request.into_inner()).await?;
        Ok(Response::new(v1::RotateUnlockKeyResponse { unlock_key }))
    }

    type BackupClusterStream = Pieces;

    async fn backup_cluster(
        &self,
        request: Request<v1::BackupClusterRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let file = self.0.back_up(request.into_inner().passphrase).await?;
        Ok(Response::new(pieces(file)))
    }

    async fn restore_cluster(
        &self,
        request: Request<Streaming<v1::RestoreClusterRequest>>,
    ) -> Result<Response<v1::RestoreClusterResponse>, Status> {
        let (file, passphrase) = collect(request.into_inner()).await?;
        let handle = self.0.clone();
        let restore = async move { handle.restore(file, passphrase).await };
        Ok(Response::new(to_the_end(restore).await?))
    }

    async fn get_peer_keys(
        &self,
        _request: Request<v1::GetPeerKeysRequest>,
    ) -> Result<Response<v1::GetPeerKeysResponse>, Status> {
        Ok(Response::new(self.0.peer_keys()?))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status().await?))
    }
}

/// A file, piece by piece.
fn pieces(file: Vec<u8>) -> Pieces {
    let mut rest = Bytes::from(file);
    Box::pin(stream::iter(core::iter::from_fn(move || {
        let data = rest.split_to(rest.len().min(PIECE));
        (!data.is_empty()).then(|| Ok(v1::BackupClusterResponse { data: data.to_vec() }))
    })))
}

/// The file and the passphrase that a caller sends.
async fn collect(
    mut messages: Streaming<v1::RestoreClusterRequest>,
) -> Result<(Vec<u8>, String), Status> {
    let first = messages.message().await?.unwrap_or_default();
    let (mut file, passphrase) = (first.data, first.passphrase);
    while let Some(message) = messages.message().await? {
        if file.len() + message.data.len() > MAX_BACKUP {
            return Err(invalid_field("data", format!("a backup has {MAX_BACKUP} bytes at most")));
        }
        file.extend_from_slice(&message.data);
    }
    Ok((file, passphrase))
}
