//! Endpoints whose network namespace has ended: unplugged when that is seen, detached when it does not
//! come back.
//!
//! ```text
//!            namespace ends            10 s, or it was a process's
//!  plugged ───────────────► vanished ───────────────────────────► released: detached in the cluster
//!     ▲                        │
//!     └── one is at its path ──┘
//! ```

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use overlay_api::v1::{self, endpoints_client::EndpointsClient};
use overlay_types::EndpointId;
use tonic::{Code, Status};

use crate::{
    managers::Managers,
    ports::Port,
    reconcile::{Reconciler, Shared},
};

/// How long a path may stand for nothing: whoever makes a namespace anew, as at a reboot, has that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when namespaces are not there.
#[derive(Debug, Default)]
pub(crate) struct Vanished(BTreeMap<EndpointId, Instant>);

impl Vanished {
    /// Looks at the namespaces of all ports, of which those remain that have one. Returns those without,
    /// and of these those that are to be released.
    pub(crate) fn look(
        &mut self,
        ports: &mut BTreeMap<EndpointId, Port>,
        now: Instant,
    ) -> (BTreeSet<EndpointId>, BTreeSet<EndpointId>) {
        let mut released = BTreeSet::new();
        let mut since = BTreeMap::new();
        ports.retain(|id, port| {
            let Port::Interface(interface) = port else { return true };
            if !interface.is_gone() {
                return true;
            }
            let then = self.0.get(id).copied().unwrap_or(now);
            since.insert(*id, then);
            if interface.has_ended() || now.saturating_duration_since(then) >= PATIENCE {
                released.insert(*id);
            }
            false
        });
        for id in since.keys().filter(|id| !self.0.contains_key(id)) {
            tracing::warn!(endpoint = %id, "its network namespace has ended");
        }
        self.0 = since;
        (self.0.keys().copied().collect(), released)
    }
}

/// Has managers detach what is to be released. What they do not hear is told again at the next turn.
pub(crate) async fn release(managers: Managers, shared: Arc<Shared>, reconciler: Arc<Reconciler>) {
    let mut progress = reconciler.progress();
    while progress.changed().await.is_ok() {
        let released = progress.borrow_and_update().released.clone();
        for id in released {
            match detach(&managers, id).await {
                Ok(()) => {
                    tracing::info!(endpoint = %id, "detached: its network namespace has ended");
                    if let Err(error) = shared.ports.remove(id) {
                        tracing::error!(%error, "a port of an endpoint that is gone stays on the disk");
                    }
                }
                Err(status) => {
                    tracing::debug!(endpoint = %id, reason = status.message(), "not detached yet");
                }
            }
        }
    }
}

async fn detach(managers: &Managers, id: EndpointId) -> Result<(), Status> {
    let mut client = EndpointsClient::new(managers.channel().await?);
    let request = v1::DetachEndpointRequest { endpoint: id.to_string(), ..Default::default() };
    match client.detach_endpoint(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        answer => answer.map(drop),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some instant")]
mod tests {
    use std::path::Path;

    use crate::ports::Interface;

    use super::*;

    fn at(path: &Path, started: Option<u64>) -> Port {
        Port::Interface(Interface { name: "eth0".into(), netns: Some(path.to_owned()), started })
    }

    #[test]
    fn d06_an_endpoint_is_released_when_its_namespace_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netns");
        let [memory, here, comes_back, ended] = [1, 2, 3, 4].map(EndpointId::from_u128);
        let own = Port::Interface(Interface { name: "eth0".into(), netns: None, started: None });
        let process = format!("/proc/{}/ns/net", std::process::id());
        let ports = BTreeMap::from([
            (memory, Port::Memory),
            (here, own),
            (comes_back, at(&path, None)),
            // Another process has the id by now.
            (ended, at(Path::new(&process), Some(1))),
        ]);
        let mut vanished = Vanished::default();
        let mut look = |now| {
            let mut left = ports.clone();
            let (gone, released) = vanished.look(&mut left, now);
            (left.into_keys().collect::<Vec<_>>(), gone, released)
        };
        let now = Instant::now();
        let both = BTreeSet::from([comes_back, ended]);
        let expected = (vec![memory, here], both.clone(), BTreeSet::from([ended]));
        assert_eq!(look(now), expected);
        assert_eq!(look(now + PATIENCE / 2), expected);
        std::os::unix::fs::symlink("/proc/self/ns/net", &path).unwrap();
        assert_eq!(look(now + PATIENCE).1, BTreeSet::from([ended]));
        // A file that stands for nothing is no namespace, and the time begins anew.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(look(now + PATIENCE).2, BTreeSet::from([ended]));
        assert_eq!(look(now + PATIENCE * 2), (vec![memory, here], both.clone(), both));
    }
}
