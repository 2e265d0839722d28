//! The data key, which seals what a node keeps on its disk.
//!
//! ```text
//!           make                    lock_with(unlock key)
//!   empty ────────► open, in clear ◄─────────────────────► open, locked on disk
//!     ▲               │                                      │          ▲
//!     └─── forget ────┴──────────────────────────────────────┤  restart │ unlock
//!                                                            ▼          │
//!                                                          locked ──────┘
//! ```
//!
//! A locked vault opens with the unlock key only, which is nowhere on the host.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay_api::internal::v1 as wire;
use overlay_crypto::at_rest::{DataKey, Sealer, UnlockKey};
use overlay_types::Revision;
use prost::Message;
use wire::stored_data_key::Key;
use zeroize::Zeroizing;

use crate::{NodeError, disk::replace};

/// Lost with it is all that it sealed.
const HINT: &str = "put it back, or move the data directory away and join again";

/// Seals and opens a node's files. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// The node has kept nothing yet.
    Empty,
    /// What is on the disk opens with the unlock key.
    Locked(Vec<u8>),
    Open(Arc<Opened>),
}

#[derive(Debug)]
struct Opened {
    key: DataKey,
    sealer: Sealer,
    lock: Lock,
}

/// How the data key lies on the disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lock {
    /// What it is sealed with; `None`: it lies there in clear.
    pub(crate) unlock: Option<UnlockKey>,
    /// Revision of the cluster's lock that this follows.
    pub(crate) revision: Revision,
}

impl Vault {
    /// The vault whose data key is kept at `path`.
    pub(crate) fn open(path: PathBuf) -> Result<Self, NodeError> {
        let state = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::Empty,
            Err(source) => return Err(NodeError::File { path, source }),
            Ok(content) => {
                let content = Zeroizing::new(content);
                let stored = read(&content).ok_or_else(|| damaged(&path))?;
                let revision = Revision::new(stored.lock_revision);
                match stored.key {
                    Some(Key::Locked(_)) => State::Locked(content.to_vec()),
                    Some(Key::Clear(key)) => {
                        let key = Zeroizing::new(key);
                        let key = key.as_slice().try_into().map_err(|_| damaged(&path))?;
                        let lock = Lock { unlock: None, revision };
                        State::opened(DataKey::from_bytes(key), lock)
                    }
                    None => return Err(damaged(&path)),
                }
            }
        };
        Ok(Self { path, state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Result<Arc<Opened>, NodeError> {
        match &*self.state() {
            State::Open(opened) => Ok(Arc::clone(opened)),
            State::Locked(_) => Err(NodeError::Locked),
            State::Empty => Err(NodeError::Damaged {
                path: self.path.clone(),
                reason: "it is missing".into(),
                hint: HINT,
            }),
        }
    }

    /// Whether the unlock key is needed.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(&*self.state(), State::Locked(_))
    }

    /// Draws a new data key, for a node that has kept nothing yet.
    pub(crate) fn make(&self, lock: Lock) -> Result<(), NodeError> {
        let mut state = self.state();
        let key = DataKey::from_bytes(rand::random());
        self.keep(&key, &lock)?;
        *state = State::opened(key, lock);
        Ok(())
    }

    /// Opens a locked vault.
    pub(crate) fn unlock(&self, unlock: &UnlockKey) -> Result<(), NodeError> {
        let mut state = self.state();
        let State::Locked(content) = &*state else { return Err(NodeError::NotLocked) };
        let stored = read(content).ok_or_else(|| damaged(&self.path))?;
        let Some(Key::Locked(wrapped)) = stored.key else { return Err(damaged(&self.path)) };
        let key = DataKey::unwrap(unlock, &wrapped).map_err(|_| NodeError::WrongUnlockKey)?;
        let revision = Revision::new(stored.lock_revision);
        *state = State::opened(key, Lock { unlock: Some(unlock.clone()), revision });
        Ok(())
    }

    /// Back to locked, if the disk says so: what was unlocked for did not work out.
    pub(crate) fn close(&self) -> Result<(), NodeError> {
        let again = Self::open(self.path.clone())?;
        core::mem::swap(&mut *self.state(), &mut *again.state());
        Ok(())
    }

    /// Changes how the data key lies on the disk. What follows an older lock than it does by now
    /// changes nothing.
    pub(crate) fn lock_with(&self, lock: Lock) -> Result<(), NodeError> {
        let mut state = self.state();
        let State::Open(opened) = &*state else { return Ok(()) };
        if lock == opened.lock || lock.revision < opened.lock.revision {
            return Ok(());
        }
        self.keep(&opened.key, &lock)?;
        *state = State::opened(opened.key.clone(), lock);
        Ok(())
    }

    /// Lays the data key down in clear, whatever the cluster's lock: a worker does not hear of the
    /// unlock key, and so could not be opened with a newer one.
    pub(crate) fn leave_unlocked(&self) -> Result<(), NodeError> {
        let mut state = self.state();
        let State::Open(opened) = &*state else { return Ok(()) };
        if opened.lock == Lock::default() {
            return Ok(());
        }
        self.keep(&opened.key, &Lock::default())?;
        *state = State::opened(opened.key.clone(), Lock::default());
        Ok(())
    }

    fn keep(&self, key: &DataKey, lock: &Lock) -> Result<(), NodeError> {
        let kept = match &lock.unlock {
            Some(unlock) => Key::Locked(key.wrap(unlock, rand::random())),
            None => Key::Clear(key.as_bytes().to_vec()),
        };
        let stored = wire::StoredDataKey { key: Some(kept), lock_revision: lock.revision.get() };
        let content = Zeroizing::new(write(stored));
        replace(&self.path, &content)
            .map_err(|source| NodeError::File { path: self.path.clone(), source })
    }

    /// The key, for the replicated state.
    pub(crate) fn key(&self) -> Result<DataKey, NodeError> {
        self.opened().map(|opened| opened.key.clone())
    }

    /// `content` sealed for the file of this name.
    pub(crate) fn seal(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, NodeError> {
        Ok(self.opened()?.sealer.seal(name.as_bytes(), content))
    }

    /// What was sealed for the file of this name; `None` if these bytes were not.
    pub(crate) fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, NodeError> {
        Ok(self.opened()?.sealer.open(name.as_bytes(), sealed).ok())
    }

    /// The node has kept nothing any more.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        // If it is not there it need not be removed.
        let _ = fs::remove_file(&self.path);
        *state = State::Empty;
    }
}

impl State {
    fn opened(key: DataKey, lock: Lock) -> Self {
        let sealer = Sealer::new(&key, rand::random());
        Self::Open(Arc::new(Opened { key, sealer, lock }))
    }
}

fn damaged(path: &Path) -> NodeError {
    let reason = "it is no data key".to_owned();
    NodeError::Damaged { path: path.to_owned(), reason, hint: HINT }
}

fn write(stored: wire::StoredDataKey) -> Vec<u8> {
    let mut body = Zeroizing::new(stored.encode_to_vec());
    let mut content = crc32c::crc32c(&body).to_be_bytes().to_vec();
    content.append(&mut body);
    content
}

fn read(content: &[u8]) -> Option<wire::StoredDataKey> {
    let (sum, body) = content.split_first_chunk()?;
    let sound = u32::from_be_bytes(*sum) == crc32c::crc32c(body);
    sound.then(|| wire::StoredDataKey::decode(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(folder: &tempfile::TempDir) -> Vault {
        Vault::open(folder.path().join("data-key")).unwrap()
    }

    fn lock(byte: u8, revision: u64) -> Lock {
        let unlock = Some(UnlockKey::from_bytes([byte; 32]));
        Lock { unlock, revision: Revision::new(revision) }
    }

    fn bytes(folder: &tempfile::TempDir) -> Vec<u8> {
        fs::read(folder.path().join("data-key")).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_after_a_restart_in_its_own_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = vault(&folder);
        assert!(matches!(first.seal("view", b"x"), Err(NodeError::Damaged { .. })));
        first.make(Lock::default()).unwrap();
        let sealed = first.seal("view", b"content").unwrap();
        let again = vault(&folder);
        assert_eq!(again.unseal("view", &sealed).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(again.unseal("node", &sealed).unwrap(), None);
        again.forget();
        assert!(!folder.path().join("data-key").exists());
    }

    #[test]
    fn c05_a_locked_vault_opens_with_the_newest_unlock_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let made = vault(&folder);
        made.make(lock(1, 1)).unwrap();
        let (key, sealed) = (made.key().unwrap(), made.seal("view", b"content").unwrap());
        assert!(!bytes(&folder).windows(32).any(|part| part == key.as_bytes()));
        made.lock_with(lock(2, 5)).unwrap();
        // A manager that has not caught up yet: its user has only the newer key.
        made.lock_with(lock(1, 1)).unwrap();

        let locked = vault(&folder);
        assert!(locked.is_locked());
        assert!(matches!(locked.unseal("view", &sealed), Err(NodeError::Locked)));
        let wrong = UnlockKey::from_bytes([1; 32]);
        assert!(matches!(locked.unlock(&wrong), Err(NodeError::WrongUnlockKey)));
        assert!(locked.is_locked());
        locked.unlock(&UnlockKey::from_bytes([2; 32])).unwrap();
        assert_eq!(locked.unseal("view", &sealed).unwrap().as_deref(), Some(&b"content"[..]));
        locked.close().unwrap();
        assert!(locked.is_locked());
        locked.unlock(&UnlockKey::from_bytes([2; 32])).unwrap();
        assert!(matches!(locked.unlock(&wrong), Err(NodeError::NotLocked)));

        locked.lock_with(Lock { unlock: None, revision: Revision::new(9) }).unwrap();
        assert_eq!(vault(&folder).key().unwrap(), key);
    }

    #[test]
    fn c05_a_worker_follows_the_lock_again_when_it_becomes_a_manager() {
        let folder = tempfile::tempdir().unwrap();
        let made = vault(&folder);
        made.make(lock(1, 4)).unwrap();
        made.leave_unlocked().unwrap();
        assert!(!vault(&folder).is_locked());
        made.lock_with(lock(1, 4)).unwrap();
        assert!(vault(&folder).is_locked());
    }

    #[test]
    fn r05_a_damaged_data_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        vault(&folder).make(Lock::default()).unwrap();
        let content = bytes(&folder);
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            fs::write(folder.path().join("data-key"), damaged).unwrap();
            let error = Vault::open(folder.path().join("data-key")).unwrap_err();
            assert!(error.to_string().contains("data-key is damaged"), "{error}");
        }
    }
}
