//! What a node's handle does with the cluster: make it, join it, leave it, lock it, save it.

use std::sync::Arc;

use overlay_api::{
    status::{Reason, with_reason},
    v1,
};
use overlay_cluster::{
    ca::unlock_key::{self, UnlockKeyError},
    control::Control,
};

use super::{Inner, NodeHandle};
use crate::{
    NodeError,
    dataplane::{sweep, sweep_gateway, sweep_mesh},
    lifecycle, lock, recovery,
};

impl NodeHandle {
    fn check_alone(&self) -> Result<(), NodeError> {
        match self.slot().as_ref() {
            Some(member) => Err(NodeError::InCluster(member.identity().cluster)),
            None if self.0.disk.vault().is_locked() => Err(NodeError::Locked),
            None => Ok(()),
        }
    }

    /// Makes this node the first manager of a new cluster.
    pub async fn init(
        &self,
        request: v1::InitClusterRequest,
    ) -> Result<v1::InitClusterResponse, NodeError> {
        let _busy = self.0.busy.lock().await;
        if request.force_new_cluster {
            self.go_on_alone().await?;
        } else {
            self.check_alone()?;
            let member =
                lifecycle::init(&self.0.config, &self.0.choice, &self.0.disk, request).await?;
            *self.slot() = Some(Arc::new(member));
        }
        let identity = self.member()?.identity();
        let tokens = self.tokens()?;
        Ok(v1::InitClusterResponse {
            cluster: identity.cluster.to_string(),
            node: identity.node.to_string(),
            worker_token: tokens.worker,
            manager_token: tokens.manager,
            unlock_key: self.unlock_key().await?,
        })
    }

    /// Goes on with this manager alone. If that fails it is what it was.
    async fn go_on_alone(&self) -> Result<(), NodeError> {
        let member = self.member()?;
        recovery::check_lost(&member).await?;
        let identity = member.identity();
        self.take();
        member.stop().await;
        let Inner { config, disk, .. } = &*self.0;
        let alone = recovery::go_on_alone(config, disk, identity).await;
        self.resume().await?;
        alone
    }

    /// The replicated state as of now, sealed with a passphrase. A manager has it.
    pub async fn back_up(&self, passphrase: String) -> Result<Vec<u8>, NodeError> {
        recovery::back_up(&*self.member()?, passphrase).await
    }

    /// Makes this node the only manager of the cluster that was backed up.
    pub async fn restore(
        &self,
        file: Vec<u8>,
        passphrase: String,
    ) -> Result<v1::RestoreClusterResponse, NodeError> {
        let _busy = self.0.busy.lock().await;
        self.check_alone()?;
        let Inner { config, choice, disk, .. } = &*self.0;
        let member = recovery::restore(config, choice, disk, file, passphrase).await?;
        let identity = member.identity();
        *self.slot() = Some(Arc::new(member));
        let tokens = self.tokens()?;
        Ok(v1::RestoreClusterResponse {
            cluster: identity.cluster.to_string(),
            node: identity.node.to_string(),
            worker_token: tokens.worker,
            manager_token: tokens.manager,
        })
    }

    /// Opens this manager with the unlock key, and takes up where it stopped.
    pub async fn unlock(&self, text: &str) -> Result<(), NodeError> {
        let _busy = self.0.busy.lock().await;
        let invalid = |error: UnlockKeyError| {
            overlay_api::status::invalid_field("unlock_key", error.to_string())
        };
        let key = unlock_key::parse(text).map_err(invalid)?;
        let vault = self.0.disk.vault();
        vault.unlock(&key)?;
        let resumed = self.resume().await;
        if resumed.is_err() {
            vault.close()?;
        }
        resumed
    }

    /// The unlock key; empty if managers start without one. A manager has it.
    pub async fn unlock_key(&self) -> Result<String, NodeError> {
        lock::current(&self.control_of("the unlock key")?).await
    }

    /// Changes what holds for the whole cluster. Returns what holds then.
    pub async fn update(
        &self,
        request: v1::UpdateClusterRequest,
    ) -> Result<v1::UpdateClusterResponse, NodeError> {
        lock::update(&self.control_of("this")?, &self.0.disk, &request).await
    }

    /// Replaces the unlock key. Returns the new one.
    pub async fn rotate_unlock_key(
        &self,
        request: v1::RotateUnlockKeyRequest,
    ) -> Result<String, NodeError> {
        lock::rotate(&self.control_of("the unlock key")?, &self.0.disk, &request).await
    }

    /// Joins a cluster.
    pub async fn join(
        &self,
        request: v1::JoinClusterRequest,
    ) -> Result<v1::JoinClusterResponse, NodeError> {
        let _busy = self.0.busy.lock().await;
        self.check_alone()?;
        let member = lifecycle::join(&self.0.config, &self.0.choice, &self.0.disk, request).await?;
        let identity = member.identity();
        *self.slot() = Some(Arc::new(member));
        Ok(v1::JoinClusterResponse {
            cluster: identity.cluster.to_string(),
            node: identity.node.to_string(),
            role: v1::Role::from(identity.role).into(),
        })
    }

    /// Takes the node out of its cluster. What it kept of it is erased, so that it can join another.
    pub async fn leave(
        &self,
        request: v1::LeaveClusterRequest,
    ) -> Result<v1::LeaveClusterResponse, NodeError> {
        let _busy = self.0.busy.lock().await;
        if self.is_locked() && request.force {
            sweep_mesh(self.0.choice.carriers.plain, self.0.config.mesh());
            sweep(self.0.choice.carriers.plain, &self.0.config).await;
            sweep_gateway(&self.0.config.gateway_trace(), self.0.config.gateway()?);
            self.0.disk.forget();
            let remains = "this manager is locked and could tell nobody".to_owned();
            return Ok(v1::LeaveClusterResponse { remains });
        }
        let member = self.member()?;
        let mut remains = vec![lifecycle::leave(&member, request.force).await?];
        self.take();
        let reconciler = Arc::clone(&member.reconciler);
        member.stop().await;
        // Before the node forgets that it was one: after a crash here it is asked to leave again.
        let cleared = tokio::task::spawn_blocking(move || reconciler.clear()).await;
        if let Ok(Err(error)) = cleared {
            tracing::error!(%error, "this host is not as it was before the node");
            remains.push(format!("on this host: {error}"));
        }
        remains.retain(|reason| !reason.is_empty());
        let remains = remains.join("; ");
        self.0.disk.forget();
        Ok(v1::LeaveClusterResponse { remains })
    }

    /// The join tokens; a manager has them.
    pub fn tokens(&self) -> Result<v1::GetJoinTokensResponse, NodeError> {
        lifecycle::tokens(&self.control_of("join tokens")?)
    }

    /// Replaces a join token; the one before admits nobody any more. A manager can.
    pub async fn rotate_token(
        &self,
        request: v1::RotateJoinTokenRequest,
    ) -> Result<v1::RotateJoinTokenResponse, NodeError> {
        let token = lifecycle::rotate_token(&self.control_of("join tokens")?, &request).await?;
        Ok(v1::RotateJoinTokenResponse { token })
    }

    /// What managers alone have.
    fn control_of(&self, what: &str) -> Result<Control, NodeError> {
        let control = self.member()?.control();
        let worker = || format!("this node is a worker; ask a manager for {what}");
        control.ok_or_else(|| with_reason(Reason::NodeIsWorker, worker()).into())
    }
}
