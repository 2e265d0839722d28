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
        let mut local = session.connect().await?.local();
        let passphrase = secret::choose("Passphrase: ", self.passphrase_file.as_deref())?;
        let request = v1::BackupClusterRequest { passphrase };
        let mut pieces = local.backup_cluster(request).await?.into_inner();
        let part = self.file.with_added_extension("part");
        let mut file = create(&part)?;
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            let data = piece?.data;
            file.write_all(&data).map_err(|error| named(&part, &error))?;
            bytes += data.len() as u64;
        }
        file.sync_all().map_err(|error| named(&part, &error))?;
        // Never half a backup under its name, and none that is there already is lost.
        fs::hard_link(&part, &self.file).map_err(|error| named(&self.file, &error))?;
        fs::remove_file(&part).map_err(|error| named(&part, &error))?;
        let sentence = format!(
            "{} holds the cluster, with its CA and keys ({bytes} bytes); 'overlayctl restore' and the \
             passphrase bring it back.\n",
            self.file.display()
        );
        Ok(session.format.said(sentence, &Written { file: self.file, bytes }).into())
    }
}

/// A file that only its owner can read. A former attempt that broke off is in nobody's way.
fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(|error| named(path, &error))
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
        let file = fs::read(&self.file).map_err(|error| named(&self.file, &error))?;
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

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
