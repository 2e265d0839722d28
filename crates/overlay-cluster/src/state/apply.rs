//! One command at a time.

use overlay_types::{Change, Meta, Object, ObjectKey, Revision, UnixMillis};

use super::{Action, Applied, Command, Rejection, Response, State, kind::Kind};

/// Objects of one kind. Four times what the design must carry; beyond it a full comparison of a
/// node and a snapshot take longer than the design allows.
pub(super) const MAX_NODES: usize = 20_000;
/// See [`MAX_NODES`].
pub(super) const MAX_NETWORKS: usize = 16_000;
/// See [`MAX_NODES`].
pub(super) const MAX_SERVICES: usize = 80_000;
/// See [`MAX_NODES`].
pub(super) const MAX_ENDPOINTS: usize = 800_000;

/// When a command is applied.
#[derive(Clone, Copy)]
pub(super) struct Context {
    /// Revision that the state gets if the command changes something.
    pub(super) revision: Revision,
    /// The command's own time.
    pub(super) at: UnixMillis,
}

impl Context {
    pub(super) const fn created(self) -> Meta {
        Meta::created(self.revision)
    }

    pub(super) const fn changed(self, old: Meta) -> Meta {
        Meta { created_at: old.created_at, changed_at: self.revision }
    }
}

/// An accepted command, before its changes reach the view.
pub(super) type Outcome = Result<Applied, Rejection>;

impl Applied {
    /// Nothing was to be done.
    pub(super) const fn unchanged(response: Response) -> Self {
        Self { response, changes: Vec::new() }
    }

    /// One object is new or different.
    pub(super) fn put(response: Response, object: Object) -> Self {
        Self { response, changes: vec![Change::Put(object)] }
    }

    /// One object is gone.
    pub(super) fn deleted(key: ObjectKey) -> Self {
        Self { response: Response::Done, changes: vec![Change::Delete(key)] }
    }
}

impl State {
    /// Applies a command. A rejection is an answer like any other, and changed nothing.
    ///
    /// A change advances the revision by one; the changes that come back are what leads a
    /// [`View`](overlay_types::View) of the former revision there. A request that was applied
    /// before changes nothing and gets its former answer again (C12), unless what that is about
    /// was removed since.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejection> {
        if let Some(response) = self.requests.get(command.request) {
            self.check_repeated(command, response)?;
            return Ok(Applied::unchanged(response.clone()));
        }
        let context = Context { revision: self.revision().next(), at: command.at };
        let applied = self.decide(context, &command.action)?;
        if !applied.changes.is_empty() {
            self.index.update(&self.view, &applied.changes);
            self.view.apply(context.revision, applied.changes.iter().cloned());
            self.requests.insert(command.request, applied.response.clone());
        }
        Ok(applied)
    }

    /// Refuses to give the former answer to another command, or when it would have the caller go on
    /// with an id that is nobody's any more.
    fn check_repeated(&self, command: &Command, answer: &Response) -> Result<(), Rejection> {
        let request = command.request;
        if !answer.answers(&command.action) {
            return Err(Rejection::RequestReused { request });
        }
        let view = &self.view;
        let (kind, id, there) = match answer {
            Response::Node(o) => (Kind::Node, o.id.to_string(), view.nodes().contains_key(&o.id)),
            Response::Network(o) => {
                (Kind::Network, o.id.to_string(), view.networks().contains_key(&o.id))
            }
            Response::Service(o) => {
                (Kind::Service, o.id.to_string(), view.services().contains_key(&o.id))
            }
            Response::Endpoint(o) => {
                (Kind::Endpoint, o.id.to_string(), view.endpoints().contains_key(&o.id))
            }
            // An epoch ends by itself, and nobody goes on with its number.
            Response::Epoch(_)
            | Response::NodeKey(_)
            | Response::GossipKeys
            | Response::Cluster(_)
            | Response::Done => return Ok(()),
        };
        if there { Ok(()) } else { Err(Rejection::Undone { request, kind, id }) }
    }

    fn decide(&mut self, context: Context, action: &Action) -> Outcome {
        if self.view.cluster().is_none() && !matches!(action, Action::InitCluster(_)) {
            return Err(Rejection::NoCluster);
        }
        self.check_level(action)?;
        match action {
            Action::InitCluster(init) => self.init_cluster(context, init),
            Action::JoinNode(node) => self.join_node(context, node),
            Action::UpdateNode { node, based_on } => self.update_node(context, node, *based_on),
            Action::MoveNode(to) => self.move_node(context, to),
            Action::RemoveNode(id) => self.remove_node(context, *id),
            Action::CreateNetwork { id, spec, host_routes } => {
                self.create_network(context, *id, spec, host_routes)
            }
            Action::UpdateNetwork { id, based_on, spec, host_routes } => {
                self.update_network(context, (*id, *based_on), spec, host_routes)
            }
            Action::RemoveNetwork(wanted) => self.remove_network(context, wanted),
            Action::CreateService { id, spec } => self.create_service(context, *id, spec),
            Action::UpdateService { id, based_on, spec } => {
                self.update_service(context, (*id, *based_on), spec)
            }
            Action::RemoveService(wanted) => self.remove_service(wanted),
            Action::AttachEndpoint { id, spec } => self.attach_endpoint(context, *id, spec),
            Action::DetachEndpoint(id) => self.detach_endpoint(*id),
            Action::SetReadiness { id, to } => self.set_readiness(context, *id, *to),
            Action::ReportHealth(report) => self.report_health(context, report),
            Action::PublishNodeKey { node, epoch, public } => {
                self.publish_node_key(context, (*epoch, *node), *public)
            }
            Action::ReportEpochReady { node, epoch, public } => {
                self.report_epoch_ready(context, (*epoch, *node), *public)
            }
            Action::StartRotation { epoch, deadline } => {
                self.start_rotation(context, *epoch, *deadline)
            }
            Action::AdvanceEpoch { epoch, to, deadline, drained } => {
                self.advance_epoch(context, (*epoch, *to), *deadline, *drained)
            }
            Action::RemoveEpoch(epoch) => self.remove_epoch(*epoch),
            Action::RotateGossipKey { key, deadline } => {
                self.rotate_gossip_key(context, key, *deadline)
            }
            Action::AdvanceGossipKey { to, deadline } => {
                self.advance_gossip_key(context, *to, *deadline)
            }
            Action::RotateJoinSecret { role, secret } => {
                self.rotate_join_secret(context, *role, secret)
            }
            Action::UpdateCluster(update) => self.update_cluster(context, update),
            Action::RotateUnlockKey(key) => self.rotate_unlock_key(context, key),
            Action::AnnounceLevel { node, level } => self.announce_level(context, *node, *level),
            Action::AnnounceCapabilities { node, capabilities, host } => {
                self.announce_capabilities(context, *node, *capabilities, host)
            }
            Action::RotateRoot { replaces, root, successor } => {
                self.rotate_root(context, *replaces, root, successor)
            }
            Action::NoteCertificate { node, root } => self.note_certificate(context, *node, *root),
            Action::FinishRootRotation(root) => self.finish_root_rotation(context, *root),
        }
    }
}

/// Refuses one more object than there may be.
pub(super) fn check_room(kind: Kind, count: usize, limit: usize) -> Result<(), Rejection> {
    if count < limit { Ok(()) } else { Err(Rejection::TooMany { kind, limit }) }
}
