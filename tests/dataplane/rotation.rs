//! **lossless-rotation** between two switches at full speed: the managers are a table in the test, so that
//! an epoch lasts for as long as it takes to cross 2^32, and a thousand of them some minutes.
//!
//! ```text
//!  memory port ── switch 1 ═══ loopback ═══ switch 2 ── memory port
//!                    └ Rotation ── table ── Rotation ┘
//! ```
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::net::IpAddr;
use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use overlay_crypto::rotation::{EpochStatus, NodeKeyStatus, Output, Rotation, RotationConfig};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    sa::Sa,
    user::{SwitchConfig, UserDataplane, engine::Sas, ports::MemoryPort},
};
use overlay_types::{ClusterId, EndpointId, Epoch, EpochState, NetworkId, NodeId, Vni};

use crate::{
    capture::{endpoint, frame, on_loopback},
    probe::DEADLINE,
};

/// How many rotations, for those who have more time.
const ROTATIONS: &str = "OVERLAY_TEST_ROTATIONS";
/// Where associations begin: so far below 2^32 that each crosses it.
const FIRST: u64 = (1 << 32) - PER_EPOCH / 2;
/// Frames each way in an epoch, at least.
const PER_EPOCH: u64 = 1000;
/// Frames under way: what the rings and sockets hold without dropping any.
const WINDOW: u64 = 64;

/// What the managers have replicated.
#[derive(Default)]
struct Table {
    epochs: BTreeMap<Epoch, EpochStatus>,
    keys: BTreeMap<(NodeId, Epoch), NodeKeyStatus>,
}

impl Table {
    fn put_epoch(&mut self, epoch: u64, state: EpochState) {
        let epoch = Epoch::new(epoch);
        self.epochs.insert(epoch, EpochStatus { epoch, state, drained: None });
    }

    fn remove_epoch(&mut self, epoch: u64) {
        let epoch = Epoch::new(epoch);
        self.epochs.remove(&epoch);
        self.keys.retain(|(_, of), _| *of != epoch);
    }

    fn take(&mut self, key: NodeKeyStatus) {
        let known = self.keys.get(&(key.node, key.epoch));
        let is_news = if key.ready {
            known.is_some_and(|known| known.public == key.public)
        } else {
            known.is_none()
        };
        if is_news {
            self.keys.insert((key.node, key.epoch), key);
        }
    }
}

/// One of the two nodes.
struct Side {
    number: u8,
    rotation: Rotation,
    desired: Desired,
    dataplane: UserDataplane,
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([127, 77, 8, number])
}

fn node(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

impl Side {
    fn start(number: u8) -> Result<(Self, MemoryPort)> {
        let other = 3 - number;
        let mut network = Network::new(Settings {
            vni: Vni::for_overlay(4244)?,
            encrypted: true,
            multicast: false,
            mtu: 1400,
            subnets: Vec::new(),
        });
        network.members.insert(address(other));
        let ((mac, addresses), port) = (endpoint(number), PortKind::Memory);
        let id = EndpointId::from_u128(number.into());
        network.locals.insert(id, LocalEndpoint::new(mac, addresses, port));
        let (mac, addresses) = endpoint(other);
        let remote = RemoteEndpoint { mac, addresses, node: address(other) };
        network.remotes.insert(EndpointId::from_u128(other.into()), remote);
        let mut desired = Desired::default();
        desired.networks.insert(NetworkId::from_u128(1), network);
        let mut config = SwitchConfig::new(address(number), 1);
        config.engine.first_sequence = FIRST;
        let rotation = Rotation::new(
            ClusterId::from_u128(7),
            node(number),
            RotationConfig::default(),
            [number; 32],
        );
        let dataplane = UserDataplane::start(config)?;
        let mut side = Self { number, rotation, desired, dataplane };
        side.apply()?;
        let port = side.dataplane.take_memory_port(id).context("the port was just made")?;
        Ok((side, port))
    }

    fn apply(&mut self) -> Result<()> {
        let ops = diff(&self.desired, &self.dataplane.observe()?);
        self.dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// What a node does when the table has changed.
    fn turn(&mut self, table: &mut Table) -> Result<()> {
        let now = Instant::now();
        for id in self.dataplane.switch().with_sas(Sas::newly_heard)? {
            self.rotation.handle_heard(id);
        }
        let known: Vec<Epoch> = self.rotation.epochs().map(|(epoch, _)| epoch).collect();
        for gone in known.iter().filter(|epoch| !table.epochs.contains_key(epoch)) {
            self.rotation.handle_epoch_removed(*gone);
        }
        table.epochs.values().for_each(|epoch| self.rotation.handle_epoch(*epoch, now));
        table.keys.values().try_for_each(|key| self.rotation.handle_key(*key, now))?;
        let mut reports = Vec::new();
        let (peer, own) = (address(3 - self.number), node(self.number));
        let sas = &mut self.desired.sas;
        loop {
            match self.rotation.poll_output(now) {
                Output::InstallInbound { id, keys } => {
                    sas.inbound.insert(id, Sa { id, address: peer, keys: Arc::new(keys) });
                }
                Output::UseForSending { id, keys, greet } => {
                    sas.outbound.insert(id.peer, Sa { id, address: peer, keys: Arc::new(keys) });
                    sas.greet.extend(greet.then_some(id.peer));
                }
                Output::StopSending { peer } => drop(sas.outbound.remove(&peer)),
                Output::Remove(id) => drop(sas.inbound.remove(&id)),
                Output::Publish { epoch, public } => {
                    reports.push(NodeKeyStatus { node: own, epoch, public, ready: false });
                }
                Output::ReportReady { epoch, public } => {
                    reports.push(NodeKeyStatus { node: own, epoch, public, ready: true });
                }
                Output::Erased(_) | Output::RequestRotation(_) => {}
                Output::Wait(_) => break,
            }
        }
        self.apply()?;
        for report in reports {
            table.take(report);
        }
        Ok(())
    }

    /// Epoch that it sends with.
    fn sends_with(&self) -> Option<u64> {
        self.rotation.sending_with(node(3 - self.number)).map(|id| id.epoch.get())
    }
}

/// What one side has sent, and the other received of it.
#[derive(Default)]
struct Numbers {
    sent: AtomicU64,
    arrived: AtomicU64,
    doubled: AtomicU64,
    /// No more is sent.
    ended: AtomicBool,
}

/// Sends numbered frames from `number`, as many as arrive at the other side, and takes those from there.
fn load(
    mut port: MemoryPort,
    number: u8,
    [own, others]: [&Numbers; 2],
    stop: &AtomicBool,
) -> Result<()> {
    let mut seen: Vec<bool> = Vec::new();
    let mut last = Instant::now();
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped {
            own.ended.store(true, Ordering::Release);
        }
        let sent = own.sent.load(Ordering::Relaxed);
        if !stopped && sent - own.arrived.load(Ordering::Relaxed) < WINDOW {
            port.send(frame(number, 3 - number, &sent.to_be_bytes()))?;
            own.sent.store(sent + 1, Ordering::Relaxed);
        }
        if let Some(frame) = port.try_recv()? {
            let octets = frame.last_chunk().context("a number")?;
            let arrived = u64::from_be_bytes(*octets) as usize;
            if seen.len() <= arrived {
                seen.resize(arrived + 1, false);
            }
            let counter = if seen[arrived] { &others.doubled } else { &others.arrived };
            seen[arrived] = true;
            counter.fetch_add(1, Ordering::Relaxed);
            last = Instant::now();
            continue;
        }
        // Before what was sent is read, which does not change any more then.
        let ended = others.ended.load(Ordering::Acquire);
        let all = others.arrived.load(Ordering::Relaxed) == others.sent.load(Ordering::Relaxed);
        if ended && stopped && (all || last.elapsed() > DEADLINE) {
            return Ok(());
        }
        thread::yield_now();
    }
}

/// Waits until `count` more frames have arrived each way.
fn until_arrived(numbers: &[Numbers; 2], count: u64) -> Result<()> {
    let begin = Instant::now();
    for way in numbers {
        let wanted = way.arrived.load(Ordering::Relaxed) + count;
        while way.arrived.load(Ordering::Relaxed) < wanted {
            let sent = way.sent.load(Ordering::Relaxed);
            ensure!(
                begin.elapsed() < DEADLINE,
                "{sent} were sent, number {wanted} does not arrive"
            );
            thread::yield_now();
        }
    }
    Ok(())
}

fn turn(sides: &mut [Side; 2], table: &mut Table, times: u8) -> Result<()> {
    for _ in 0..times {
        sides.iter_mut().try_for_each(|side| side.turn(table))?;
    }
    Ok(())
}

/// Has an epoch become active. Sides see each state one after the other.
fn begin(sides: &mut [Side; 2], table: &mut Table, epoch: u64) -> Result<()> {
    for state in [EpochState::Preparing, EpochState::Ready, EpochState::Active] {
        table.put_epoch(epoch, state);
        turn(sides, table, 2)?;
    }
    let is_used = |side: &Side| side.sends_with() == Some(epoch);
    ensure!(sides.iter().all(is_used), "epoch {epoch} is not used");
    Ok(())
}

/// Replaces the keys of `epoch` by those of the next.
fn rotate(
    sides: &mut [Side; 2],
    table: &mut Table,
    numbers: &[Numbers; 2],
    epoch: u64,
) -> Result<()> {
    until_arrived(numbers, PER_EPOCH)?;
    for side in sides.iter() {
        let used =
            side.dataplane.switch().with_sas(|sas| sas.outbound_use().collect::<Vec<_>>())?;
        let crossed = used.iter().any(|(_, packets, _)| FIRST + packets > u64::from(u32::MAX));
        ensure!(crossed, "2^32 is not crossed");
    }
    begin(sides, table, epoch + 1)?;
    table.put_epoch(epoch, EpochState::Retired);
    turn(sides, table, 1)?;
    // What was sealed with the old keys has come by then.
    until_arrived(numbers, 2 * WINDOW)?;
    table.remove_epoch(epoch);
    turn(sides, table, 1)
}

/// moby 52005: Docker's 32-bit numbers end, and with them the traffic.
#[test]
fn lossless_rotation_e03_moby_52005_numbers_cross_2_32_in_each_epoch() -> Result<()> {
    let count = match env::var(ROTATIONS) {
        Ok(text) => text.parse().with_context(|| format!("{ROTATIONS}={text} is no number"))?,
        Err(_) => 20,
    };
    on_loopback(move || {
        let (one, first_port) = Side::start(1)?;
        let (two, second_port) = Side::start(2)?;
        let mut sides = [one, two];
        let numbers = <[Numbers; 2]>::default();
        let mut table = Table::default();
        begin(&mut sides, &mut table, 1)?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let [there, back] = [&numbers[0], &numbers[1]];
            let stop = &stop;
            let loads = [
                scope.spawn(move || load(first_port, 1, [there, back], stop)),
                scope.spawn(move || load(second_port, 2, [back, there], stop)),
            ];
            let rotated = (1..=count).try_for_each(|epoch| {
                let rotated = rotate(&mut sides, &mut table, &numbers, epoch);
                rotated.with_context(|| format!("in epoch {epoch}"))
            });
            stop.store(true, Ordering::Relaxed);
            for load in loads {
                load.join().expect("a load panicked")?;
            }
            rotated
        })?;
        for way in &numbers {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let (sent, arrived) = (read(&way.sent), read(&way.arrived));
            ensure!(arrived == sent, "{} of {sent} are lost", sent - arrived);
            ensure!(read(&way.doubled) == 0, "{} came twice", read(&way.doubled));
        }
        Ok(())
    })
}
