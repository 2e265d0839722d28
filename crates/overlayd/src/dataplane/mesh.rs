//! This node's part of the routing mesh. Nodes whose plain networks are in the kernel answer on published
//! ports. A user node does not: its gate leads nowhere, but its tasks in containers get what sends
//! answers back to the gates of other nodes.

use std::collections::{BTreeMap, BTreeSet};

use overlay_dataplane::{
    Error,
    desired::{Mesh, PortKind},
    kernel::{
        KernelMesh, MeshConfig,
        mesh::{Concerned, MeshOutcome},
    },
};
use overlay_types::{DataplaneKind, EndpointId};

use super::choice;

/// A node's part of the mesh.
#[derive(Debug)]
pub(crate) struct NodeMesh {
    /// `None` on a user node without nf_tables.
    kernel: Option<KernelMesh>,
    /// The node answers on published ports.
    publishes: bool,
    /// Of a node that does not: its tasks in containers, as they were last made to be.
    tasks: Option<Mesh>,
    /// What was refused in the last turn, and logged.
    told: BTreeSet<String>,
    /// What keeps the gate from having a namespace, as it was logged.
    homeless: Option<String>,
}

impl NodeMesh {
    /// The part of a node of this kind.
    pub(crate) fn start(kind: DataplaneKind, config: MeshConfig) -> Result<Self, Error> {
        let kernel = match kind {
            DataplaneKind::Kernel => Some(KernelMesh::start(config)?),
            DataplaneKind::User => {
                sweep(kind, config.clone());
                let started = KernelMesh::start(config);
                started.inspect_err(|error| tracing::debug!(%error, "tasks get no way back")).ok()
            }
        };
        let publishes = kind == DataplaneKind::Kernel;
        Ok(Self { kernel, publishes, tasks: None, told: BTreeSet::new(), homeless: None })
    }

    /// How the gate is plugged in on a network that this carries. What keeps it from having a namespace
    /// is logged, and tried again.
    pub(crate) fn gate(&mut self, carrier: DataplaneKind) -> Option<PortKind> {
        let kernel = self.kernel.as_ref().filter(|_| self.publishes);
        let Some(kernel) = kernel else { return Some(PortKind::Memory) };
        match (kernel.gate(), carrier) {
            (Ok(PortKind::Veth { name, netns }), DataplaneKind::User) => {
                Some(PortKind::Tap { name, netns: Some(netns) })
            }
            (Ok(port), _) => Some(port),
            (Err(error), _) => {
                let text = Some(error.to_string());
                if self.homeless != text {
                    tracing::error!(%error, "the gate of the routing mesh has no namespace");
                    self.homeless = text;
                }
                None
            }
        }
    }

    /// Makes the part what it shall be. Says of which endpoints something is missing, and why. Before a
    /// manager was `heard` the view is that of the disk, which may lack the last second: what the run
    /// before left stays as it is.
    pub(crate) fn turn(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        heard: bool,
    ) -> BTreeMap<EndpointId, String> {
        let mut failures = BTreeMap::new();
        let outcome = if self.publishes {
            self.compare(mesh, plugged, heard)
        } else {
            self.have_tasks_answer(mesh, plugged)
        };
        for change in &outcome.changes {
            tracing::info!(change, "this node's part of the routing mesh changes");
        }
        let mut told = BTreeSet::new();
        for (concerned, error) in outcome.refused {
            let text = format!("{concerned}: {error}");
            if !self.told.contains(&text) {
                tracing::error!(%error, %concerned, "the routing mesh is not as it shall be");
            }
            told.insert(text);
            if let Concerned::Task(id) = concerned {
                failures.insert(id, error.to_string());
            }
        }
        self.told = told;
        failures
    }

    fn compare(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        heard: bool,
    ) -> MeshOutcome {
        let Some(kernel) = &mut self.kernel else { return MeshOutcome::default() };
        // What cannot be looked at is told of by the comparison.
        if !heard && kernel.has_left().unwrap_or(false) {
            return MeshOutcome::default();
        }
        kernel.reconcile(mesh, plugged)
    }

    /// On a node that publishes nothing.
    fn have_tasks_answer(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
    ) -> MeshOutcome {
        let in_container = |port: &PortKind| matches!(port, PortKind::Tap { netns: Some(_), .. });
        let mut wanted = mesh.cloned();
        if let Some(mesh) = &mut wanted {
            mesh.tasks.retain(|_, task| in_container(&task.port));
        }
        let wanted = wanted.filter(|mesh| !mesh.tasks.is_empty());
        // Those of before lose what they got.
        let cleared = self.tasks.take().map(|before| Mesh { tasks: BTreeMap::new(), ..before });
        self.tasks.clone_from(&wanted);
        let (Some(kernel), Some(mesh)) = (&mut self.kernel, wanted.or(cleared)) else {
            return MeshOutcome::default();
        };
        let mut outcome = kernel.reconcile(Some(&mesh), plugged);
        // There is no gate to publish through.
        outcome.refused.retain(|(concerned, _)| matches!(concerned, Concerned::Task(_)));
        outcome
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        let empty = BTreeMap::new();
        if !self.publishes {
            let refused = self.have_tasks_answer(None, &empty).refused;
            return refused.into_iter().try_for_each(|(_, error)| Err(error));
        }
        self.kernel.as_mut().map_or(Ok(()), remove)
    }
}

fn remove(kernel: &mut KernelMesh) -> Result<(), Error> {
    let refused = kernel.reconcile(None, &BTreeMap::new()).refused;
    refused.into_iter().try_for_each(|(_, error)| Err(error))
}

/// Removes what a kernel node's part left, on a node that has none. What cannot be removed is logged.
pub(crate) fn sweep(kind: DataplaneKind, config: MeshConfig) {
    let swept = || -> anyhow::Result<()> {
        let mut kernel = KernelMesh::start(config)?;
        if !kernel.has_left()? {
            return Ok(());
        }
        // Of another daemon on this host, it is in use.
        let seat = (kind == DataplaneKind::User).then(choice::take_seat).transpose();
        let Ok(_seat) = seat else { return Ok(()) };
        Ok(remove(&mut kernel)?)
    };
    if let Err(error) = swept() {
        tracing::error!(%error, "a part of the routing mesh stays on this host");
    }
}
