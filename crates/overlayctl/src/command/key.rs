//! `key status|rotate`

use clap::Subcommand;
use overlay_api::v1;
use serde::Serialize;

use super::{Report, names};
use crate::{failure::Failure, session::Session, view::Keys};

/// What can be done with keys.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Show the generations of keys, which nodes have them, and what this node's are used for
    Status,
    /// Start a rotation of all keys now; it ends by itself and loses no packet
    Rotate,
}

#[derive(Serialize)]
struct Rotation {
    epoch: u64,
}

impl Verb {
    /// Does it.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        match self {
            Self::Status => {
                let request = v1::GetKeyStatusRequest::default();
                let answer = node.keys().get_key_status(request).await?.into_inner();
                let peers = node.local().get_peer_keys(v1::GetPeerKeysRequest {}).await?;
                let peers = peers.into_inner().peers;
                Ok(session.format.one(&Keys::new(answer, peers, &names(&node).await?)).into())
            }
            Self::Rotate => {
                let request = v1::RotateKeysRequest::default();
                let epoch = node.keys().rotate_keys(request).await?.into_inner().epoch;
                let sentence = format!("Rotation to key epoch {epoch} started.\n");
                Ok(session.format.said(sentence, &Rotation { epoch }).into())
            }
        }
    }
}
