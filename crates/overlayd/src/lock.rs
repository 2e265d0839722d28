//! The cluster's lock: managers keep their data keys under the unlock key that the replicated state
//! names.

use core::time::Duration;

use overlay_api::v1;
use overlay_cluster::{
    ca::{CaError, unlock_key},
    control::Control,
    server::request_id,
    state::{Action, ClusterUpdate, ManagerLock, OpaqueSecret},
};
use overlay_crypto::at_rest::UnlockKey;

use crate::{NodeError, disk::Disk, vault::Lock};

/// Wait after a data key could not be written: the disk may be full.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Lock {
    /// The lock that a state asks for.
    pub(crate) fn of(lock: &ManagerLock) -> Self {
        let key = lock.unlock_key.as_ref();
        let unlock =
            key.and_then(|key| Some(UnlockKey::from_bytes(key.0.as_slice().try_into().ok()?)));
        Self { unlock, revision: lock.revision }
    }
}

/// Keeps the data key as the state of `control` says. Runs until the manager stops.
pub(crate) async fn follow(control: Control, disk: Disk) {
    let mut progress = control.replica().progress();
    loop {
        progress.mark_unchanged();
        if let Err(error) = take_up(&control, &disk) {
            tracing::error!(%error, "the data key is not kept under the unlock key yet");
            let _ = tokio::time::timeout(RETRY_PAUSE, core::future::pending::<()>()).await;
            continue;
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

fn take_up(control: &Control, disk: &Disk) -> Result<(), NodeError> {
    disk.vault().lock_with(control.replica().read(|state| Lock::of(state.lock())))
}

/// The unlock key as text; empty if managers start without one.
pub(crate) async fn current(control: &Control) -> Result<String, NodeError> {
    control.linearize().await?;
    let lock = control.replica().read(|state| Lock::of(state.lock()));
    Ok(lock.unlock.map_or_else(String::new, |key| unlock_key::to_text(&key).to_string()))
}

/// Changes what holds for the whole cluster, the lock too. Returns what holds then.
pub(crate) async fn update(
    control: &Control,
    disk: &Disk,
    request: &v1::UpdateClusterRequest,
) -> Result<v1::UpdateClusterResponse, NodeError> {
    let fresh_if = |autolock: bool| autolock.then(fresh).transpose();
    let update = ClusterUpdate {
        autolock: request.autolock.map(fresh_if).transpose()?,
        rotation_period: request.rotation_period_ms.map(Duration::from_millis),
    };
    if update != ClusterUpdate::default() {
        write(control, disk, &request.request_id, Action::UpdateCluster(update)).await?;
    }
    let unlock_key = current(control).await?;
    let cluster = control.replica().read(|state| state.view().cluster().map(v1::Cluster::from));
    let rotation_period_ms = cluster.ok_or(NodeError::NoCluster)?.rotation_period_ms;
    Ok(v1::UpdateClusterResponse { unlock_key, rotation_period_ms })
}

/// Replaces the unlock key. Returns the new one.
pub(crate) async fn rotate(
    control: &Control,
    disk: &Disk,
    request: &v1::RotateUnlockKeyRequest,
) -> Result<String, NodeError> {
    write(control, disk, &request.request_id, Action::RotateUnlockKey(fresh()?)).await?;
    current(control).await
}

/// A new unlock key, for the state.
pub(crate) fn fresh() -> Result<OpaqueSecret, CaError> {
    Ok(OpaqueSecret(unlock_key::generate()?.as_bytes().to_vec()))
}

/// This manager keeps its data key so before the caller hears that it is done.
async fn write(
    control: &Control,
    disk: &Disk,
    request: &str,
    action: Action,
) -> Result<(), NodeError> {
    control.write(request_id(request)?, action).await?;
    control.linearize().await?;
    take_up(control, disk)
}
