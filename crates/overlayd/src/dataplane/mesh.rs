//! This node's part of the routing mesh: in the kernel where plain networks are there, else in user space.
//! Tasks in containers get what sends answers back to the gates of other nodes on either.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_dataplane::{
    Error,
    desired::{Mesh, PortKind},
    kernel::{KernelMesh, MeshConfig},
    mesh::{Concerned, IngressMode, MeshOutcome},
    user::{UserMesh, ports::MemoryPort},
};
use overlay_types::{DataplaneKind, EndpointId};
use tokio::runtime::Handle;

use super::{Missed, seat};

/// How long a start leaves as it is what the run before left, if it hears no manager: the view is that
/// of the disk, which may lack the last second. A manager is heard within milliseconds, two seconds if
/// one died; after this there is none, and what goes on by itself must.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's part of the mesh.
#[derive(Debug)]
pub(crate) struct NodeMesh {
    /// `None` on a user node without nf_tables.
    kernel: Option<KernelMesh>,
    /// On a user node: what answers on published ports instead.
    user: Option<UserMesh>,
    mode: IngressMode,
    start: Start,
    /// The gate had a namespace once.
    has_gate: bool,
    /// What was refused in the last turn, and logged.
    told: BTreeSet<String>,
    /// What keeps the gate from having a namespace, as it was logged.
    homeless: Option<String>,
}

/// A start, until a manager was heard.
#[derive(Debug)]
struct Start {
    /// A run before this one left something, which is in use.
    has_left: bool,
    /// The first turn.
    since: Option<Instant>,
}

/// What a turn may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Endpoints that are no tasks keep what they got from the run before.
    Spare,
    Everything,
}

impl Start {
    fn step(&mut self, has_mesh: bool, heard: bool, now: Instant) -> Step {
        let since = *self.since.get_or_insert(now);
        match (heard, has_mesh) {
            (true, _) => Step::Everything,
            (false, false) => Step::Nothing,
            (false, true) if self.has_left && now < since + PATIENCE => Step::Nothing,
            (false, true) => Step::Spare,
        }
    }
}

impl NodeMesh {
    /// The part of a node of this kind, whose connections `runtime` serves.
    pub(crate) fn start(
        kind: DataplaneKind,
        config: MeshConfig,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let mode = config.mode;
        let kernel = match kind {
            DataplaneKind::Kernel => Some(KernelMesh::start(config)?),
            DataplaneKind::User => {
                sweep(kind, config.clone());
                let started = KernelMesh::start(config);
                started.inspect_err(|error| tracing::debug!(%error, "tasks get no way back")).ok()
            }
        };
        let user = (kind == DataplaneKind::User).then(|| UserMesh::new(runtime.clone(), mode));
        // Before the gate gets a namespace. What cannot be looked at may be there. What a user node's
        // tasks had ended with their TAP devices, and with the process.
        let has_left = |kernel: &KernelMesh| kernel.has_left().unwrap_or(true);
        let has_left = user.is_none() && kernel.as_ref().is_some_and(has_left);
        let start = Start { has_left, since: None };
        let (told, homeless) = (BTreeSet::new(), None);
        Ok(Self { kernel, user, mode, start, has_gate: has_left, told, homeless })
    }

    /// How the gate is plugged in on a network that this carries. What keeps it from having a namespace
    /// is logged, and tried again. One that had a namespace stays where it is: a moment without file
    /// descriptors is no reason to take the mesh from the node.
    pub(crate) fn gate(&mut self, carrier: DataplaneKind) -> Option<PortKind> {
        let kernel = self.kernel.as_ref().filter(|_| self.user.is_none());
        let Some(kernel) = kernel else { return Some(PortKind::Memory) };
        match kernel.gate() {
            Ok(_) => (self.has_gate, self.homeless) = (true, None),
            Err(error) => {
                let text = Some(error.to_string());
                if self.homeless != text {
                    tracing::error!(%error, "the gate of the routing mesh has no namespace");
                    self.homeless = text;
                }
            }
        }
        match (self.has_gate.then(|| kernel.gate_port())?, carrier) {
            (PortKind::Veth { name, netns }, DataplaneKind::User) => {
                Some(PortKind::Tap { name, netns: Some(netns) })
            }
            (port, _) => Some(port),
        }
    }

    /// Makes the part what it shall be. Says of which endpoints something is missing, and why. Before a
    /// manager was `heard`, nothing is removed, and what the run before left stays as it is for a while.
    /// `gate` is the gate's port in memory, if it has a new one.
    pub(crate) fn turn(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        gate: Option<MemoryPort>,
        heard: bool,
        now: Instant,
    ) -> Missed {
        let outcome = match self.start.step(mesh.is_some(), heard, now) {
            Step::Nothing => return Missed::default(),
            Step::Spare => self.compare(mesh, &BTreeMap::new(), gate),
            Step::Everything => self.compare(mesh, plugged, gate),
        };
        for change in &outcome.changes {
            tracing::info!(change, "this node's part of the routing mesh changes");
        }
        self.tell(outcome.refused)
    }

    /// Logs what is new of what was refused.
    fn tell(&mut self, refused: Vec<(Concerned, Error)>) -> Missed {
        let mut missed = Missed::default();
        let mut told = BTreeSet::new();
        for (concerned, error) in refused {
            let text = format!("{concerned}: {error}");
            let is_new = !self.told.contains(&text);
            told.insert(text);
            match concerned {
                Concerned::Task(id) if is_lack(self.mode, &error) => {
                    let warning = format!(
                        "endpoint {id} cannot answer clients of the routing mesh whose own addresses it \
                         sees: {error}; run nodes that answer on published ports with --ingress-mode snat"
                    );
                    if is_new {
                        tracing::warn!("{warning}");
                    }
                    missed.lacks.push(warning);
                    continue;
                }
                Concerned::Task(id) => drop(missed.failures.insert(id, error.to_string())),
                Concerned::Everybody | Concerned::Service(_) => {}
            }
            if is_new {
                tracing::error!(%error, %concerned, "the routing mesh is not as it shall be");
            }
        }
        self.told = told;
        missed
    }

    fn compare(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        gate: Option<MemoryPort>,
    ) -> MeshOutcome {
        match (&mut self.kernel, &mut self.user) {
            (Some(kernel), None) => kernel.reconcile(mesh, plugged),
            (kernel, user) => {
                let tasks = kernel.as_mut().map(|kernel| kernel.reconcile_tasks(mesh, plugged));
                let ports = user.as_mut().map(|user| user.reconcile(mesh, gate));
                tasks.into_iter().chain(ports).fold(MeshOutcome::default(), MeshOutcome::and)
            }
        }
    }

    /// Removes everything, from these endpoints too.
    pub(crate) fn clear(&mut self, plugged: &BTreeMap<EndpointId, PortKind>) -> Result<(), Error> {
        whole(self.compare(None, plugged, None))
    }
}

/// Whether a task is attached all the same without its way back. Where this node's own clients need none,
/// or no task here can have one, that is about other nodes' clients only: those may have the task see
/// their node's address.
fn is_lack(mode: IngressMode, error: &Error) -> bool {
    mode == IngressMode::Snat || error.is_lack_of_kernel()
}

/// The first of what was refused.
fn whole(outcome: MeshOutcome) -> Result<(), Error> {
    outcome.refused.into_iter().try_for_each(|(_, error)| Err(error))
}

/// Removes what a kernel node's part left, on a node that has none. What cannot be removed is logged.
pub(crate) fn sweep(kind: DataplaneKind, config: MeshConfig) {
    let swept = || -> anyhow::Result<()> {
        let mut kernel = KernelMesh::start(config)?;
        if !kernel.has_left()? {
            return Ok(());
        }
        // Of another daemon on this host, it is in use.
        let Ok(_seat) = seat::of_another(kind) else { return Ok(()) };
        Ok(whole(kernel.reconcile(None, &BTreeMap::new()))?)
    };
    if let Err(error) = swept() {
        tracing::error!(%error, "a part of the routing mesh stays on this host");
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use nix::errno::Errno;
    use overlay_dataplane::kernel::nft::NftError;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn s10_d05_without_managers_the_mesh_comes_up_and_fails_over() {
        let began = Instant::now();
        let late = began + PATIENCE;
        // Something was left, there is to be a mesh, a manager was heard, when.
        let cases = [
            // After a reboot.
            (false, true, false, began, Step::Spare),
            // A restart: the disk may lack the last second.
            (true, true, false, began, Step::Nothing),
            (true, true, false, late, Step::Spare),
            // What the disk does not know may be in use.
            (true, false, false, late, Step::Nothing),
            (false, false, false, late, Step::Nothing),
            (true, true, true, began, Step::Everything),
            (true, false, true, began, Step::Everything),
        ];
        for (has_left, has_mesh, heard, now, expected) in cases {
            let mut start = Start { has_left, since: Some(began) };
            let step = start.step(has_mesh, heard, now);
            assert_eq!(step, expected, "{has_left} {has_mesh} {heard} {:?}", now - began);
        }
    }

    #[tokio::test]
    async fn d06_a_gate_that_was_there_stays_where_it_is() {
        // No directory can be made there.
        let directory = PathBuf::from("/proc/none");
        let config = MeshConfig { directory: directory.clone(), mode: IngressMode::Transparent };
        let mut mesh = NodeMesh::start(DataplaneKind::Kernel, config, &Handle::current()).unwrap();
        assert_eq!(mesh.gate(DataplaneKind::Kernel), None);
        mesh.has_gate = true;
        let (name, netns) = ("ingress0".to_owned(), directory.join("mesh"));
        let veth = PortKind::Veth { name: name.clone(), netns: netns.clone() };
        assert_eq!(mesh.gate(DataplaneKind::Kernel), Some(veth));
        let tap = PortKind::Tap { name, netns: Some(netns) };
        assert_eq!(mesh.gate(DataplaneKind::User), Some(tap));
    }

    #[test]
    fn s11_what_a_kernel_lacks_keeps_no_task_from_being_attached() {
        let refused = |errno: Errno| {
            let source = io::Error::from(errno);
            let object = "add chain egress".to_owned();
            Error::from(NftError::Refused { object, source, text: None })
        };
        let answers = Error::Answers { endpoint: EndpointId::from_u128(1), reason: "none".into() };
        let cases = [
            (IngressMode::Transparent, refused(Errno::EOPNOTSUPP), true),
            (IngressMode::Transparent, refused(Errno::EPERM), false),
            (IngressMode::Snat, refused(Errno::EPERM), true),
            (IngressMode::Transparent, answers, false),
        ];
        for (mode, error, expected) in cases {
            assert_eq!(is_lack(mode, &error), expected, "{mode:?}: {error}");
        }
    }
}
