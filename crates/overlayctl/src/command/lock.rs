//! `unlock`, `unlock-key`: the key that managers start with.

use clap::Args;
use overlay_api::v1;

use super::Report;
use crate::{failure::Failure, secret, session::Session, view::lock::UnlockKey};

/// `unlock`
#[derive(Args, Debug)]
pub(crate) struct Unlock {}

impl Unlock {
    /// Opens this manager. The key is asked for at the terminal, or read from stdin.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let node = session.connect().await?;
        let unlock_key = secret::read("Unlock key: ", None)?;
        node.local().unlock_cluster(v1::UnlockClusterRequest { unlock_key }).await?;
        Ok(session.format.said("This manager is unlocked.\n".into(), &"unlocked").into())
    }
}

/// `unlock-key`
#[derive(Args, Debug)]
pub(crate) struct ShowKey {
    /// Make a new key first; managers that are down open with the one before, once
    #[arg(long)]
    rotate: bool,
    /// Print the key and nothing else
    #[arg(short, long)]
    quiet: bool,
}

impl ShowKey {
    /// Asks for the key, or for a new one.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let mut local = session.connect().await?.local();
        let unlock_key = if self.rotate {
            let request = v1::RotateUnlockKeyRequest::default();
            local.rotate_unlock_key(request).await?.into_inner().unlock_key
        } else {
            local.get_unlock_key(v1::GetUnlockKeyRequest {}).await?.into_inner().unlock_key
        };
        let key = UnlockKey { unlock_key };
        let sentence = if self.quiet { key.line() } else { key.sentence(self.rotate) };
        Ok(session.format.said(sentence, &key).into())
    }
}
