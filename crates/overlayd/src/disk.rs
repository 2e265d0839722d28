//! The data directory.
//!
//! | file | content |
//! |---|---|
//! | `data-key` | what seals the files below, in clear or locked; see `vault` |
//! | `node` | sealed: the node's certificate and key, and the roots that it trusts |
//! | `view` | sealed: the last view, so that the node works without managers |
//! | `state`, `state.log-N` | on a manager: the replicated state and its log, each record sealed |
//! | `ports` | how local endpoints are plugged in |
//! | `incarnation` | gossip's; see `overlay_gossip::io::incarnation` |
//!
//! All of it is readable by its owner only. Files are replaced whole, so after a crash there is the
//! old one or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay_api::{convert::known_changes, v1};
use overlay_cluster::{
    ca::{CaError, NodeCredentials},
    raft::store,
};
use overlay_types::{Change, EndpointId, Revision, UnixMillis, View};
use prost::Message;
use zeroize::Zeroizing;

use crate::{
    NodeError,
    ports::{Interface, Port},
    vault::Vault,
};

const REJOIN: &str = "put it back, or move the data directory away and join again";

/// Certificate and key.
const NODE: &str = "node";

/// A node's data directory.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    vault: Vault,
    /// Held while a file is replaced: writers share its temporary name, and what is written last
    /// must be what was true last.
    writing: Arc<Mutex<()>>,
}

impl Disk {
    /// Opens the directory, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, NodeError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| NodeError::File { path: path.to_owned(), source })?;
        let (folder, vault) = (path.to_owned(), Vault::open(path.join("data-key"))?);
        Ok(Self { folder, vault, writing: Arc::default() })
    }

    /// What seals the files.
    pub(crate) const fn vault(&self) -> &Vault {
        &self.vault
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, NodeError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(NodeError::File { path, source }),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), NodeError> {
        let path = self.path(name);
        replace(&path, content).map_err(|source| NodeError::File { path, source })
    }

    /// A file that [`write_sealed`](Self::write_sealed) wrote; `None` if there is none.
    fn read_sealed(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, NodeError> {
        let Some(sealed) = self.read(name)? else { return Ok(None) };
        match self.vault.unseal(name, &sealed)? {
            Some(content) => Ok(Some(Zeroizing::new(content))),
            None => Err(self.damaged(name, "it is not what was sealed with this data key".into())),
        }
    }

    fn write_sealed(&self, name: &str, content: &[u8]) -> Result<(), NodeError> {
        self.write(name, &self.vault.seal(name, content)?)
    }

    fn damaged(&self, name: &str, reason: String) -> NodeError {
        NodeError::Damaged { path: self.path(name), reason, hint: REJOIN }
    }

    /// The node's credentials; `None` when it is in no cluster.
    pub(crate) fn credentials(
        &self,
        now: UnixMillis,
    ) -> Result<Option<NodeCredentials>, NodeError> {
        let Some(mut content) = self.read_sealed(NODE)? else { return Ok(None) };
        let damaged = |reason| self.damaged(NODE, reason);
        let content = String::from_utf8(core::mem::take(&mut *content));
        let content = Zeroizing::new(content.map_err(|_| damaged("it is no text".into()))?);
        match NodeCredentials::from_pem(&content, now) {
            Ok(credentials) => Ok(Some(credentials)),
            Err(error @ (CaError::Expired { .. } | CaError::NotYetValid { .. })) => {
                Err(NodeError::Outdated { path: self.path(NODE), error })
            }
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Refuses a directory that holds what a node of some cluster left: init and join start from
    /// nothing, and clean up after themselves when they fail.
    pub(crate) fn check_blank(&self) -> Result<(), NodeError> {
        match [NODE, "state", "data-key"]
            .map(|name| self.path(name))
            .into_iter()
            .find(|p| p.exists())
        {
            None => Ok(()),
            Some(path) => Err(NodeError::Occupied { path }),
        }
    }

    /// Keeps the credentials.
    pub(crate) fn keep_credentials(&self, credentials: &NodeCredentials) -> Result<(), NodeError> {
        let _turn = self.turn();
        self.write_sealed(NODE, credentials.to_pem().as_bytes())
    }

    /// Removes what makes this host a node of its cluster: after it left, or after a join or init that
    /// failed.
    pub(crate) fn forget(&self) {
        for name in [NODE, "view", "ports", "incarnation"] {
            // What is not there need not be removed.
            let _ = fs::remove_file(self.path(name));
        }
        let _ = store::erase(&self.path("state"));
        self.vault.forget();
    }

    /// Removes the replicated state of a node that is no manager any more: it has the keys of all.
    pub(crate) fn erase_state(&self) -> Result<(), NodeError> {
        let path = self.path("state");
        store::erase(&path).map_err(|source| NodeError::File { path, source })
    }

    /// The last view that was kept.
    pub(crate) fn view(&self) -> Result<Option<View>, NodeError> {
        let Some(content) = self.read_sealed("view")? else { return Ok(None) };
        let damaged = |reason| self.damaged("view", reason);
        let message =
            v1::WatchResponse::decode(content.as_slice()).map_err(|e| damaged(e.to_string()))?;
        let mut view = View::default();
        let changes = known_changes(message.changes).map_err(|e| damaged(e.to_string()))?;
        view.apply(Revision::new(message.revision), changes);
        Ok(Some(view))
    }

    /// The error of a node whose view is gone.
    pub(crate) fn no_view(&self) -> NodeError {
        self.damaged("view", "it is missing".into())
    }

    /// Keeps the view that `current` returns when it is this write's turn.
    pub(crate) fn keep_view(&self, current: impl FnOnce() -> View) -> Result<(), NodeError> {
        let _turn = self.turn();
        let view = current();
        let put = |object: overlay_types::Object| v1::Change::from(&Change::Put(object));
        let message = v1::WatchResponse {
            revision: view.revision().get(),
            snapshot: true,
            more: false,
            changes: view.objects().map(put).collect(),
        };
        self.write_sealed("view", &Zeroizing::new(message.encode_to_vec()))
    }

    /// How local endpoints are plugged in.
    pub(crate) fn ports(&self) -> Result<BTreeMap<EndpointId, Port>, NodeError> {
        let Some(content) = self.read("ports")? else { return Ok(BTreeMap::new()) };
        let damaged = |reason| self.damaged("ports", reason);
        let kept: BTreeMap<EndpointId, Interface> =
            serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
        Ok(kept.into_iter().map(|(id, interface)| (id, Port::Interface(interface))).collect())
    }

    /// Keeps how local endpoints are plugged in, as `current` says when it is this write's turn.
    /// Memory ports end with the process.
    pub(crate) fn keep_ports(
        &self,
        current: impl FnOnce() -> BTreeMap<EndpointId, Port>,
    ) -> Result<(), NodeError> {
        let _turn = self.turn();
        let ports = current();
        let kept: BTreeMap<EndpointId, &Interface> = ports
            .iter()
            .filter_map(|(id, port)| match port {
                Port::Interface(interface) => Some((*id, interface)),
                Port::Memory => None,
            })
            .collect();
        let content = serde_json::to_vec(&kept).unwrap_or_default();
        self.write("ports", &content)
    }
}

/// Replaces a file whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // What is left of a write that failed takes room, and may be half a key.
    write_new(&temporary, content).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use overlay_cluster::ca::{PendingJoin, RootCa, Subject, join::SigningRequest};
    use overlay_types::{ClusterId, NodeId, Role};

    use super::*;
    use crate::vault::Lock;

    fn disk() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&folder.path().join("data")).unwrap();
        disk.vault().make(Lock::default()).unwrap();
        (folder, disk)
    }

    #[test]
    fn r05_a_damaged_view_is_named() {
        let (_folder, disk) = disk();
        assert_eq!(disk.view().unwrap(), None);
        let mut view = View::default();
        view.apply(Revision::new(7), []);
        disk.keep_view(|| view.clone()).unwrap();
        assert_eq!(disk.view().unwrap(), Some(view));
        let path = disk.path("view");
        let mut content = fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&path, content).unwrap();
        assert!(matches!(disk.view(), Err(NodeError::Damaged { .. })));
    }

    #[test]
    fn r05_a_node_with_half_its_credentials_is_not_a_new_one() {
        let (_folder, disk) = disk();
        assert!(disk.credentials(UnixMillis(0)).unwrap().is_none());
        fs::write(disk.path(NODE), "x").unwrap();
        assert!(matches!(disk.credentials(UnixMillis(0)), Err(NodeError::Damaged { .. })));
        assert!(matches!(disk.check_blank(), Err(NodeError::Occupied { .. })));
        assert!(disk.path(NODE).exists());
        disk.forget();
        disk.check_blank().unwrap();
    }

    #[test]
    fn c04_credentials_that_expired_are_no_damage() {
        let (_folder, disk) = disk();
        let now = UnixMillis(1_800_000_000_000);
        let ca = RootCa::generate(ClusterId::from_u128(1), now).unwrap();
        let pending = PendingJoin::new().unwrap();
        let request = SigningRequest::from_der(pending.request()).unwrap();
        let subject = Subject::at_first(NodeId::from_u128(2), Role::Worker);
        let certificate = ca.sign(&request, subject, now).unwrap();
        let root = ca.certificate().clone();
        let credentials = pending.complete(&certificate, root.into(), now).unwrap();
        disk.keep_credentials(&credentials).unwrap();
        let kept = disk.credentials(now).unwrap().unwrap();
        assert_eq!(kept.identity(), credentials.identity());
        let late = credentials.validity().end.after(core::time::Duration::from_secs(1));
        let error = disk.credentials(late).unwrap_err();
        assert!(matches!(error, NodeError::Outdated { .. }), "{error}");
        assert!(error.to_string().contains("join again"), "{error}");
    }

    #[test]
    fn ports_come_back_but_for_those_in_memory() {
        let (_folder, disk) = disk();
        let port = |name: &str, netns| {
            Port::Interface(Interface { name: name.into(), netns, started: Some(7) })
        };
        let (here, there) = (port("tap0", None), port("eth0", Some("/run/netns/a".into())));
        let kept: BTreeMap<_, _> =
            [1, 3].map(EndpointId::from_u128).into_iter().zip([here, there]).collect();
        let mut ports = kept.clone();
        ports.insert(EndpointId::from_u128(2), Port::Memory);
        disk.keep_ports(|| ports).unwrap();
        assert_eq!(disk.ports().unwrap(), kept);
    }
}
