//! `backup`, `restore`: the cluster's state as a file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use overlay_api::v1;
use serde::Serialize;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::{Report, cluster};
use crate::{failure::Failure, secret, session::Session, view::Restored};

/// Bytes of a file in one message.
const PIECE: usize = 1 << 20;

/// `backup`
#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// Where to write it; what is there stays
    file: PathBuf,
    /// Read the passphrase from the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Serialize, Debug)]
struct Written {
    file: PathBuf,
    bytes: u64,
}

impl Backup {
    /// Writes the state of the cluster, sealed with a passphrase.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if self.file.exists() {
            let there = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Failure::of_file(&self.file)(there));
        }
        let mut local = session.connect().await?.local();
        let passphrase = secret::choose("Passphrase: ", self.passphrase_file.as_deref())?;
        let request = v1::BackupClusterRequest { passphrase };
        let pieces = local.backup_cluster(request).await?.into_inner();
        let part = self.file.with_added_extension("part");
        let written = write(pieces, &part).await.and_then(|bytes| {
            // Never half a backup under its name, and none that came there meanwhile is lost.
            fs::hard_link(&part, &self.file).map_err(Failure::of_file(&self.file))?;
            Ok(bytes)
        });
        // If it is not there it need not be removed.
        let _ = fs::remove_file(&part);
        let bytes = written?;
        let sentence = format!(
            "{} holds the cluster, with its CA and keys ({bytes} bytes); 'overlayctl restore' and the \
             passphrase bring it back.\n",
            self.file.display()
        );
        Ok(session.format.said(sentence, &Written { file: self.file, bytes }).into())
    }
}

/// Writes a file that only its owner can read. Returns how long it is.
async fn write(
    mut pieces: Streaming<v1::BackupClusterResponse>,
    path: &Path,
) -> Result<u64, Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = opened.map_err(Failure::of_file(path))?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let data = piece?.data;
        file.write_all(&data).map_err(Failure::of_file(path))?;
        bytes += data.len() as u64;
    }
    file.sync_all().map_err(Failure::of_file(path))?;
    Ok(bytes)
}

/// `restore`
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// What 'overlayctl backup' wrote
    file: PathBuf,
    /// Read the passphrase from the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Restore {
    /// Makes this node the only manager of the cluster that was backed up.
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let file = fs::read(&self.file).map_err(Failure::of_file(&self.file))?;
        let node = session.connect().await?;
        let passphrase = secret::read("Passphrase: ", self.passphrase_file.as_deref())?;
        let first = v1::RestoreClusterRequest { passphrase, data: Vec::new() };
        let rest: Vec<_> = file.chunks(PIECE).map(<[u8]>::to_vec).collect();
        let rest =
            rest.into_iter().map(|data| v1::RestoreClusterRequest { data, ..Default::default() });
        let messages = tokio_stream::iter(core::iter::once(first).chain(rest));
        let answer = node.local().restore_cluster(messages).await?.into_inner();
        let restored = Restored {
            cluster: answer.cluster,
            node: answer.node,
            worker_token: answer.worker_token,
            manager_token: answer.manager_token,
            remotes: cluster::managers(&node).await,
        };
        Ok(session.format.said(restored.sentence(), &restored).into())
    }
}
