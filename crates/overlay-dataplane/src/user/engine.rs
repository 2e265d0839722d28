//! The switch: frames and datagrams in, frames and datagrams out, `now` as argument.
//!
//! ```text
//!            handle_frame                              handle_datagram
//!  port ──► ingress ──► neighbor (ARP, ND)       egress ◄── VXLAN ◄── 4789
//!              │    └──► service, icmp             │ ▲
//!              ▼                                   │ └── sealed (ESP) ◄── 4500
//!           transit ──► local port: Frame ◄────────┘
//!              └──────► other node: Datagrams, sealed or plain
//! ```
//!
//! No I/O, no clock, no randomness, no lock. Tables are immutable and swapped whole; what the
//! engine itself keeps is the flow table and the associations' sequence numbers.

mod batch;
mod coalesce;
mod counters;
mod egress;
mod flow;
mod flow_table;
mod fragment;
mod hash;
mod icmp;
mod ingress;
mod neighbor;
mod rewrite;
mod sealed;
mod segment;
mod service;
mod tables;
#[cfg(test)]
mod tests;
mod transit;
mod unfinished;

use core::{net::IpAddr, time::Duration};
use std::{sync::Arc, time::Instant};

use overlay_types::NodeId;

pub use batch::{Batch, Channel, FRAME_HEADROOM, Offload, Output};
pub use counters::{Counters, DropReason, Event};
pub use flow_table::DEFAULT_MAX_FLOWS;
use flow_table::FlowTable;
use fragment::FragmentTable;
pub(crate) use ingress::link_local;
pub use sealed::Sas;
pub use tables::{NetworkTable, PortBinding, PortId, ROUTER_MAC, Tables};
use transit::Transit;

use crate::wire::{announcement::Announcement, vxlan};

/// Time between two looks at expired flows.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// What the engine is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data-path address of the node, which inner UDP checksums over IPv6 cover.
    pub data_path: IpAddr,
    /// UDP port of VXLAN inside ESP. 4788: next to VXLAN's own, and used by nothing else.
    pub encrypted_vxlan_port: u16,
    /// Most flows to services that are kept at once.
    pub max_flows: usize,
    /// Number that associations begin behind, at both ends alike. 0, unless a test is to cross 2^32
    /// within its time.
    pub first_sequence: u64,
    /// Random: it keeps endpoints from choosing flows that collide in the flow table.
    pub seed: u64,
}

impl Config {
    /// An engine of the node at `data_path`. `seed` is random, see [`Config::seed`].
    pub const fn new(data_path: IpAddr, seed: u64) -> Self {
        Self {
            data_path,
            encrypted_vxlan_port: 4788,
            max_flows: DEFAULT_MAX_FLOWS,
            first_sequence: 0,
            seed,
        }
    }
}

/// The switch of one node.
#[derive(Debug)]
pub struct Engine {
    tables: Arc<Tables>,
    kept: Kept,
    next_sweep: Option<Instant>,
}

/// What stays from one packet to the next, whatever the tables.
#[derive(Debug)]
struct Kept {
    config: Config,
    /// Number of the tables in use.
    generation: u64,
    flows: FlowTable,
    fragments: FragmentTable,
    sas: Sas,
    counters: Arc<Counters>,
}

impl Kept {
    /// The way of one packet through `network`.
    fn transit<'a>(
        &'a mut self,
        network: &'a NetworkTable,
        now: Instant,
        out: &'a mut Batch,
    ) -> Transit<'a> {
        Transit {
            config: &self.config,
            network,
            generation: self.generation,
            flows: &mut self.flows,
            fragments: &mut self.fragments,
            sas: &mut self.sas,
            counters: &self.counters,
            now,
            out,
        }
    }
}

impl Engine {
    /// A switch without networks.
    pub fn new(config: Config) -> Self {
        let kept = Kept {
            flows: FlowTable::new(config.max_flows, config.seed),
            sas: Sas::beginning_behind(config.first_sequence),
            config,
            generation: 0,
            fragments: FragmentTable::default(),
            counters: Arc::default(),
        };
        Self { tables: Arc::default(), kept, next_sweep: None }
    }

    /// Forwards by `tables` from now on. Flows whose backend they lack end with their next packet.
    pub fn swap(&mut self, tables: Arc<Tables>) {
        self.tables = tables;
        self.kept.generation += 1;
    }

    /// Appends frames that tell ports who has come.
    pub fn announce(&self, told: &[(PortId, Announcement)], out: &mut Batch) {
        for (port, newcomer) in told {
            let (start, arena) = out.begin_frame();
            newcomer.emit(arena);
            out.commit_frame(start, *port, Offload::None);
            self.kept.counters.count(Event::Announcements);
            self.kept.counters.count(Event::FramesOut);
        }
    }

    /// The security associations, to add and remove them.
    pub fn sas_mut(&mut self) -> &mut Sas {
        &mut self.kept.sas
    }

    /// The counters, readable from any thread.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.kept.counters
    }

    /// Flows to services that are kept now.
    pub fn flows(&self) -> usize {
        self.kept.flows.len()
    }

    /// Appends one empty datagram for `peer`: it learns that this node has its keys.
    pub fn greet(&mut self, peer: NodeId, out: &mut Batch) {
        let kept = &mut self.kept;
        match kept.sas.greet(peer, &kept.config, out) {
            Ok(()) => self.kept.counters.count(Event::DatagramsOut),
            Err(reason) => self.kept.counters.count_drop(reason),
        }
    }

    /// Takes a frame from a port and appends what follows from it to `out`. Changes `frame`.
    pub fn handle_frame(
        &mut self,
        port: PortId,
        frame: &mut [u8],
        offload: Offload,
        now: Instant,
        out: &mut Batch,
    ) {
        self.kept.counters.count(Event::FramesIn);
        let result = match self.tables.port(port) {
            Some((network, local)) => {
                self.kept.transit(network, now, out).take_frame(local, frame, offload)
            }
            None => Err(DropReason::UnknownPort),
        };
        self.count_outcome(result);
    }

    /// Takes a datagram that the node at `from` sent to the VXLAN port.
    pub fn handle_vxlan(
        &mut self,
        from: IpAddr,
        datagram: &mut [u8],
        now: Instant,
        out: &mut Batch,
    ) {
        self.kept.counters.count(Event::DatagramsIn);
        let result = self.accept(from, datagram, false, now, out);
        self.count_outcome(result);
    }

    /// Takes a datagram that the node at `from` sent to the ESP port.
    pub fn handle_esp(&mut self, from: IpAddr, datagram: &mut [u8], now: Instant, out: &mut Batch) {
        self.kept.counters.count(Event::DatagramsIn);
        let port = self.kept.config.encrypted_vxlan_port;
        let result = match self.kept.sas.open(from, datagram, port) {
            Ok(inner) => self.accept(from, &mut datagram[inner], true, now, out),
            Err(reason) => Err(reason),
        };
        self.count_outcome(result);
    }

    fn accept(
        &mut self,
        from: IpAddr,
        packet: &mut [u8],
        sealed: bool,
        now: Instant,
        out: &mut Batch,
    ) -> Result<(), DropReason> {
        let (vni, _) = vxlan::parse(packet).map_err(|_| DropReason::NotVxlan)?;
        let network = self.tables.network(vni).ok_or(DropReason::UnknownVni)?;
        let mut transit = self.kept.transit(network, now, out);
        transit.take_from_node(from, &mut packet[vxlan::HEADER_LEN..], sealed)
    }

    fn count_outcome(&self, outcome: Result<(), DropReason>) {
        if let Err(reason) = outcome {
            self.kept.counters.count_drop(reason);
        }
    }

    /// Forgets flows that idled too long. Call it when [`Engine::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        let expired = self.kept.flows.sweep(now);
        self.kept.counters.count_many(Event::FlowsExpired, expired as u64);
        self.next_sweep = Some(now + SWEEP_PERIOD);
    }

    /// When [`Engine::handle_timeout`] wants to be called; `None` while there is no flow.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_sweep.filter(|_| !self.kept.flows.is_empty())
    }
}
