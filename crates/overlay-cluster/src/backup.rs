//! Backups: the replicated state as a file that a passphrase opens.
//!
//! ```text
//!   "overlay backup\n" │ header: cluster, revision, time, Argon2id parameters │ state, sealed
//!                                                             │                   ▲
//!                                            passphrase ──────┴── Argon2id ── key ┘
//! ```
//!
//! Whoever has file and passphrase has the cluster: its CA, its gossip keys, its join secrets.

use argon2::{Algorithm, Argon2, Params, Version};
use overlay_api::internal::v1 as wire;
use overlay_crypto::at_rest::{DataKey, Sealer};
use overlay_types::UnixMillis;
use prost::Message;
use zeroize::Zeroizing;

use crate::state::{State, wire::WireError};

const MAGIC: &[u8] = b"overlay backup\n";
/// What this release writes, and the only one that it reads.
const FORMAT: u32 = 1;
const SALT_LEN: usize = 16;

/// Argon2id with 64 MiB, 3 passes and one lane: the second choice of RFC 9106 section 4, with one lane
/// as there is one thread. About a quarter of a second.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// The most that a file may ask of its reader.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;

/// A backup cannot be made or read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nobody would need to guess it.
    #[error("the passphrase is empty; choose one, and keep it apart from the file")]
    NoPassphrase,
    /// Another file.
    #[error("this file is no backup of a cluster")]
    NotABackup,
    /// A file of another release.
    #[error(
        "the backup has format {found}, this release reads {FORMAT}; install the one that wrote it"
    )]
    Format {
        /// Its format.
        found: u32,
    },
    /// Which of the two it is, nobody can know.
    #[error("the passphrase is wrong, or the backup is damaged")]
    Sealed,
    /// What was sealed is no state.
    #[error("the backup cannot be read: {0}")]
    State(#[from] WireError),
    /// The state of a node that was never in a cluster.
    #[error("there is no cluster to back up")]
    NoCluster,
}

impl BackupError {
    /// What of the request is to blame.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::NoPassphrase | Self::Sealed => "passphrase",
            _ => "data",
        }
    }
}

/// `state` as a backup. Takes as long as the passphrase is to withstand guessing, and some.
pub fn seal(state: &State, passphrase: &str, made_at: UnixMillis) -> Result<Vec<u8>, BackupError> {
    let cluster = state.view().cluster().ok_or(BackupError::NoCluster)?;
    let salt: [u8; SALT_LEN] = rand::random();
    let header = wire::BackupHeader {
        format: FORMAT,
        cluster: cluster.id.to_string(),
        revision: state.revision().get(),
        made_at: made_at.0,
        salt: salt.to_vec(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
    };
    let key = key(passphrase, &header)?;
    let mut file = [MAGIC, &header.encode_length_delimited_to_vec()].concat();
    let sealed = Sealer::new(&key, rand::random()).seal(&file, &state.encode());
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// The state of a backup. Takes as long as [`seal`].
pub fn open(file: &[u8], passphrase: &str) -> Result<State, BackupError> {
    let (header, sealed) = split(file)?;
    let key = key(passphrase, &header)?;
    let before = &file[..file.len() - sealed.len()];
    let opened = Sealer::new(&key, rand::random()).open(before, sealed);
    let state = Zeroizing::new(opened.map_err(|_| BackupError::Sealed)?);
    Ok(State::decode(state.as_slice())?)
}

/// Header and sealed state.
fn split(file: &[u8]) -> Result<(wire::BackupHeader, &[u8]), BackupError> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(BackupError::NotABackup)?;
    let header = wire::BackupHeader::decode_length_delimited(&mut rest);
    let header = header.map_err(|_| BackupError::NotABackup)?;
    if header.format != FORMAT {
        return Err(BackupError::Format { found: header.format });
    }
    Ok((header, rest))
}

fn key(passphrase: &str, header: &wire::BackupHeader) -> Result<DataKey, BackupError> {
    if passphrase.is_empty() {
        return Err(BackupError::NoPassphrase);
    }
    let wire::BackupHeader { memory_kib, passes, lanes, .. } = *header;
    if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(BackupError::NotABackup);
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let params = Params::new(memory_kib, passes, lanes, Some(bytes.len()));
    let argon = params.map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params));
    argon
        .and_then(|argon| {
            argon.hash_password_into(passphrase.as_bytes(), &header.salt, &mut *bytes)
        })
        .map_err(|_| BackupError::NotABackup)?;
    Ok(DataKey::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use overlay_testkit::objects::{cluster, node};

    use super::*;
    use crate::state::{Action, Command, tests::init};

    fn state() -> State {
        let mut state = State::default();
        for (number, action) in
            [Action::InitCluster(Box::new(init(cluster()))), Action::JoinNode(node(2))]
                .into_iter()
                .enumerate()
        {
            let request = overlay_types::RequestId::from_u128(number as u128);
            state.apply(&Command { request, at: UnixMillis(7), action }).unwrap();
        }
        state
    }

    #[test]
    fn c08_a_backup_opens_with_its_passphrase_only() {
        let file = seal(&state(), "correct horse", UnixMillis(5)).unwrap();
        assert_eq!(open(&file, "correct horse").unwrap(), state());
        assert!(matches!(open(&file, "correct hors"), Err(BackupError::Sealed)));
        assert!(matches!(open(&file, ""), Err(BackupError::NoPassphrase)));
        assert!(matches!(seal(&state(), "", UnixMillis(5)), Err(BackupError::NoPassphrase)));
        let secret = &init(cluster()).trust.worker_secret;
        assert!(!file.windows(secret.len()).any(|part| part == secret));
        let none = seal(&State::default(), "x", UnixMillis(5));
        assert!(matches!(none, Err(BackupError::NoCluster)));
    }

    #[test]
    fn c08_a_damaged_backup_is_refused() {
        let file = seal(&state(), "x", UnixMillis(5)).unwrap();
        for at in [0, 14, 15, 16, 18, 40, file.len() - 500, file.len() - 1] {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged, "x").is_err(), "{at}");
        }
        for length in [0, 3, 15, 30, 100, file.len() - 1] {
            assert!(open(&file[..length], "x").is_err(), "{length}");
        }
    }

    #[test]
    fn r06_a_backup_asks_for_no_more_memory_than_there_should_be() {
        let header = wire::BackupHeader {
            format: FORMAT,
            salt: vec![0; SALT_LEN],
            memory_kib: u32::MAX,
            passes: 1,
            lanes: 1,
            ..Default::default()
        };
        let file = [MAGIC, &header.encode_length_delimited_to_vec(), &[0; 100]].concat();
        assert!(matches!(open(&file, "x"), Err(BackupError::NotABackup)));
    }
}
