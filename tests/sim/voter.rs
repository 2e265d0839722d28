//! A manager: the real `Control`, and the services that it answers with.

use core::time::Duration;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use overlay_cluster::{
    control::{Control, ControlConfig, ControlError, World},
    raft::store::Medium,
    server::{Api, Verdicts},
    state::RotationPolicy,
};
use overlay_crypto::at_rest::DataKey;
use overlay_types::{NodeId, UnixMillis};
use tokio::{sync::watch, task::AbortHandle, time::Instant};

use crate::{disk::SimDisk, ledger::Ledger, net::Net, nodes, observer, plant::Plant};

/// The time of day that simulations start at.
const DAWN: u64 = 1_800_000_000_000;
/// Log entries between two snapshots: few, so that every run makes some and sends some.
const SNAPSHOT_AFTER: u64 = 60;

/// What managers share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) net: Net,
    pub(crate) ledger: Ledger,
    /// When the run began.
    pub(crate) began: Instant,
    /// Who lives, as gossip will have noticed.
    pub(crate) alive: watch::Receiver<BTreeSet<NodeId>>,
    /// What gossip says of each node.
    pub(crate) verdicts: watch::Receiver<Verdicts>,
    pub(crate) plant: Option<Plant>,
}

/// A manager, running or not.
#[derive(Debug)]
pub(crate) struct Voter {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    /// How far its clock is ahead of the others.
    pub(crate) skew_ms: Arc<AtomicI64>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    control: Control,
    tasks: Vec<AbortHandle>,
}

impl Voter {
    pub(crate) fn new(id: NodeId, disk: SimDisk) -> Self {
        Self { id, disk, skew_ms: Arc::default(), running: None }
    }

    /// The running manager.
    pub(crate) fn control(&self) -> Option<&Control> {
        self.running.as_ref().map(|running| &running.control)
    }

    /// Starts it on what its disk holds; `create` says that this may be nothing.
    pub(crate) async fn start(
        &mut self,
        shared: &Shared,
        create: bool,
    ) -> Result<(), ControlError> {
        let (id, began, skew) = (self.id, shared.began, Arc::clone(&self.skew_ms));
        let clock = move || {
            let elapsed = u64::try_from(began.elapsed().as_millis()).expect("short runs");
            UnixMillis((DAWN + elapsed).saturating_add_signed(skew.load(Ordering::Relaxed)))
        };
        let world = World {
            clock: Arc::new(clock),
            links: Arc::new(shared.net.links(id)),
            medium: Medium::Disk(Arc::new(self.disk.clone())),
        };
        let node = nodes::node(id);
        let grace = match shared.plant {
            Some(Plant::MuteWorkers) => Duration::from_hours(1),
            _ => Duration::from_secs(2),
        };
        let config = ControlConfig {
            node: id,
            tls: nodes::credentials(id),
            store: PathBuf::from(nodes::short(id)),
            key: DataKey::from_bytes([5; 32]),
            create,
            advertise: node.control.ip(),
            rotation: RotationPolicy { grace, drain: Duration::from_secs(3) },
            snapshot_after: SNAPSHOT_AFTER,
        };
        let control = Control::start_in(world, config).await?;
        shared.net.serve(id, Api::new(control.clone(), shared.verdicts.clone()).routes());
        let (leading, alive) = (control.clone(), shared.alive.clone());
        let watched = observer::run(id, control.clone(), shared.ledger.clone());
        let tasks = vec![
            tokio::spawn(async move { leading.lead(alive).await }).abort_handle(),
            tokio::spawn(watched).abort_handle(),
        ];
        self.running = Some(Running { control, tasks });
        Ok(())
    }

    /// Stops it in the middle of whatever it does: nothing reaches its disk after this.
    pub(crate) fn crash(&mut self, power_loss: bool) {
        self.disk.crash(power_loss);
        let Some(running) = self.running.take() else { return };
        for task in running.tasks {
            task.abort();
        }
        // Its tasks run on, in a world that they cannot touch any more, until they notice.
        tokio::spawn(async move { running.control.stop().await });
    }

    /// Stops it, and forgets all that its disk holds.
    pub(crate) fn erase(&mut self) {
        self.crash(false);
        self.disk.erase();
    }
}
