//! Figures for Prometheus, over HTTP on an address of the operator's choice.
//!
//! ```text
//!   GET /metrics ──► gather: asks gossip, the dataplanes, the control plane ──► OpenMetrics text
//! ```

#![expect(clippy::cast_precision_loss, reason = "figures above 2^53 may be rounded")]

use core::{fmt, net::SocketAddr};
use std::collections::BTreeMap;

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing};
use overlay_api::v1::Liveness;
use overlay_cluster::{
    ca::{join::limit::JoinCounts, tls::HandshakeCounts},
    control::{Control, now},
};
use overlay_dataplane::sa::PeerTraffic;
use overlay_ipam::SubnetUsage;
use overlay_types::{Epoch, NodeId};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use tokio::net::TcpListener;

use crate::{NodeError, NodeHandle, keys::PeerKeys, listen::Scrapers, member::Member};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Opens the address that figures are read at.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, NodeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| NodeError::Listen { address: address.to_string(), source })
}

/// Serves figures until the task is ended.
pub(crate) async fn serve(handle: NodeHandle, listener: TcpListener) {
    let scrape = routing::get(move || scrape(handle.clone()));
    if let Err(error) =
        axum::serve(Scrapers::new(listener), Router::new().route("/metrics", scrape)).await
    {
        tracing::error!(%error, "figures are not served any more");
    }
}

async fn scrape(handle: NodeHandle) -> impl IntoResponse {
    let figures = match handle.member() {
        Ok(member) => Figures::gather(&member).await,
        // A node in no cluster has nothing to measure, and is no failure.
        Err(_) => Figures::default(),
    };
    let mut registry = Registry::with_prefix("overlay");
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Ok(([(CONTENT_TYPE, OPEN_METRICS)], text)),
        Err(fmt::Error) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// One metric: its samples, by the values of its labels.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    samples: Vec<(Vec<String>, f64)>,
}

#[derive(Debug, Default)]
struct Figures(Vec<Family>);

impl Figures {
    async fn gather(member: &Member) -> Self {
        let mut figures = Self::default();
        figures.node(member);
        figures.dataplane(member).await;
        figures.peers(member);
        figures.names(member);
        figures.gossip(member).await;
        if let Some(control) = member.control() {
            figures.control(&control);
            figures.addresses(&control);
            figures.root_rotation(&control);
        }
        if let Some((handshakes, joins)) = member.callers() {
            figures.callers(handshakes, joins);
        }
        figures
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.family(name, help, MetricType::Gauge, &[], [(Vec::new(), value)]);
    }

    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: &'static [&'static str],
        samples: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) {
        let samples = samples.into_iter().collect();
        self.0.push(Family { name, help, kind, labels, samples });
    }

    fn node(&mut self, member: &Member) {
        let (validity, now) = (member.validity(), now());
        let seconds = validity.end.0 as f64 / 1000.0;
        self.gauge("certificate_expiry_timestamp_seconds", "When the certificate ends", seconds);
        let age = now.since(validity.start).as_secs_f64();
        self.gauge("certificate_age_seconds", "Time since the certificate is valid", age);
        let revision = member.viewer.read(|view| view.revision().get());
        self.gauge("view_revision", "Revision of what the node knows", revision as f64);
        let progress = member.reconciler.progress();
        let progress = progress.borrow();
        let built = progress.revision.get() as f64;
        self.gauge("dataplane_revision", "Revision that the dataplane was built from", built);
        let (change, comparison) = (progress.change, progress.comparison);
        let help = "How long the last turn took that brought what changed to the dataplane";
        self.gauge("reconcile_change_seconds", help, change.as_secs_f64());
        let help = "How long the last turn took that compared all of the dataplane";
        self.gauge("reconcile_comparison_seconds", help, comparison.as_secs_f64());
        let plugged = progress.plugged.len() as f64;
        self.gauge("endpoints", "Endpoints of this node that are plugged in", plugged);
        let failed = progress.failures.len() as f64;
        self.gauge("endpoints_failed", "Endpoints of this node that are not", failed);
        let epoch = progress.epochs.last().map_or(0, |epoch| epoch.get());
        self.gauge("key_epoch", "Newest data-plane epoch that the node has keys of", epoch as f64);
    }

    async fn dataplane(&mut self, member: &Member) {
        let drops = member.shared.drops().await;
        self.family(
            "dataplane_dropped",
            "Frames and datagrams that were dropped, by reason",
            MetricType::Counter,
            &["reason"],
            drops.into_iter().map(|(reason, n)| (vec![reason.name().to_owned()], n as f64)),
        );
        let events = member.shared.counters.events();
        self.family(
            "dataplane_events",
            "What the switch did",
            MetricType::Counter,
            &["event"],
            events.map(|(event, count)| (vec![event.name().to_owned()], count as f64)),
        );
    }

    /// One series for each other node of the cluster.
    fn peers(&mut self, member: &Member) {
        let peers = member.reconciler.progress().borrow().peers.clone();
        let names: BTreeMap<NodeId, String> = member.viewer.read(|view| {
            let name = |id: &NodeId| view.nodes().get(id).map(|node| node.name.to_string());
            peers.keys().map(|id| (*id, name(id).unwrap_or_else(|| id.to_string()))).collect()
        });
        let samples = |values: fn(&PeerKeys) -> Vec<(&'static str, u64)>| {
            let of_peer = |(id, keys): (&NodeId, &PeerKeys)| {
                let labels = |label: &str| vec![names[id].clone(), label.to_owned()];
                values(keys).into_iter().map(|(label, n)| (labels(label), n as f64)).collect()
            };
            peers.iter().flat_map(|peer| -> Vec<_> { of_peer(peer) }).collect::<Vec<_>>()
        };
        let packets = samples(|keys| {
            vec![("in", keys.traffic.packets_in), ("out", keys.traffic.packets_out)]
        });
        let help = "Packets that were opened and sealed with the keys of each peer";
        let labels = &["peer", "direction"];
        self.family("peer_packets", help, MetricType::Counter, labels, packets);
        let bytes =
            samples(|keys| vec![("in", keys.traffic.bytes_in), ("out", keys.traffic.bytes_out)]);
        let help = "Octets that were opened and sealed with the keys of each peer";
        self.family("peer_bytes", help, MetricType::Counter, labels, bytes);
        let refused = samples(|keys| {
            let PeerTraffic { replays, bad_tags, unknown_spis, .. } = keys.traffic;
            vec![("replay", replays), ("bad_tag", bad_tags), ("unknown_spi", unknown_spis)]
        });
        let help = "Packets from each peer that were refused";
        self.family("peer_refused", help, MetricType::Counter, &["peer", "reason"], refused);
        let epochs = peers
            .iter()
            .map(|(id, keys)| (vec![names[id].clone()], keys.sending.map_or(0, Epoch::get) as f64));
        let help = "Key epoch that each peer is sent to with; 0: nothing is sent";
        let epochs: Vec<_> = epochs.collect();
        self.family("peer_key_epoch", help, MetricType::Gauge, &["peer"], epochs);
    }

    fn names(&mut self, member: &Member) {
        let names = member.shared.resolvers.figures();
        let (serving, failed) = (names.serving as f64, names.failed as f64);
        let help = "Namespaces of endpoints in which a name server answers";
        self.gauge("dns_resolvers", help, serving);
        let help = "Namespaces of endpoints that should have one and do not";
        self.gauge("dns_resolvers_failed", help, failed);
        self.family(
            "dns_queries",
            "Queries that these name servers took, by what became of them",
            MetricType::Counter,
            &["outcome"],
            names.counts.outcomes().map(|(outcome, n)| (vec![outcome.name().to_owned()], n as f64)),
        );
    }

    async fn gossip(&mut self, member: &Member) {
        let mut nodes = BTreeMap::from(
            [Liveness::Alive, Liveness::Dead, Liveness::Left, Liveness::Unknown].map(|l| (l, 0)),
        );
        for verdict in member.verdicts().values() {
            *nodes.entry(*verdict).or_default() += 1;
        }
        self.family(
            "nodes",
            "Nodes of the cluster, by what gossip says of them",
            MetricType::Gauge,
            &["liveness"],
            nodes.into_iter().map(|(liveness, count)| (vec![label(liveness)], f64::from(count))),
        );
        // Gossip that stopped has nothing to say.
        let Ok(counters) = member.gossip.counters().await else { return };
        self.family(
            "gossip_datagrams",
            "Gossip datagrams that were accepted and sent",
            MetricType::Counter,
            &["direction"],
            [("in", counters.datagrams_in), ("out", counters.datagrams_out)]
                .map(|(direction, count)| (vec![direction.to_owned()], count as f64)),
        );
        self.family(
            "gossip_dropped",
            "Gossip messages that had no effect, by reason",
            MetricType::Counter,
            &["reason"],
            counters.drops().map(|(reason, count)| (vec![reason.label().to_owned()], count as f64)),
        );
    }

    fn control(&mut self, control: &Control) {
        let raft = control.figures();
        self.gauge("raft_term", "Raft term", raft.term as f64);
        self.gauge("raft_leader", "1 while this manager leads", f64::from(u8::from(raft.leads)));
        self.gauge("raft_voters", "Managers that vote", raft.voters as f64);
        self.gauge("raft_last_index", "Last entry of the log", raft.last_index as f64);
        self.gauge("raft_applied_index", "Last entry applied", raft.applied_index as f64);
        self.gauge("raft_snapshot_index", "Last entry in the snapshot", raft.snapshot_index as f64);
        let (bytes, seconds) = (raft.snapshot_bytes as f64, raft.snapshot_time.as_secs_f64());
        self.gauge("raft_snapshot_bytes", "Size of the last snapshot made here", bytes);
        self.gauge("raft_snapshot_seconds", "How long that snapshot took", seconds);
        let failed = f64::from(u8::from(control.failure().is_some()));
        self.gauge("raft_failed", "1 while this manager cannot write to its disk", failed);
        self.gauge("watches", "Watches that this manager serves", raft.watches as f64);
    }

    fn callers(&mut self, handshakes: HandshakeCounts, joins: JoinCounts) {
        let samples = |counts: &[(&str, u64)]| {
            let sample =
                |(outcome, count): &(&str, u64)| (vec![(*outcome).to_owned()], *count as f64);
            counts.iter().map(sample).collect::<Vec<_>>()
        };
        self.family(
            "control_handshakes",
            "Control connections, by how their handshake ended",
            MetricType::Counter,
            &["outcome"],
            samples(&[
                ("completed", handshakes.completed),
                ("refused", handshakes.refused),
                ("timed_out", handshakes.timed_out),
                ("crowded_out", handshakes.crowded_out),
                ("accept_failed", handshakes.accept_failed),
            ]),
        );
        self.family(
            "joins",
            "Joins that were looked at, and those turned away because there were too many",
            MetricType::Counter,
            &["outcome"],
            samples(&[
                ("looked_at", joins.passed),
                ("limited_source", joins.limited_source),
                ("limited_total", joins.limited_total),
            ]),
        );
    }

    fn root_rotation(&mut self, control: &Control) {
        let rotation = control.replica().read(|state| Some(state.root_rotation()?.waiting.len()));
        let runs = f64::from(u8::from(rotation.is_some()));
        self.gauge("root_rotation", "1 while the root of the CA is being replaced", runs);
        let waiting = rotation.unwrap_or(0) as f64;
        let help = "Nodes without a certificate of the root that replaces the present one";
        self.gauge("root_rotation_waiting_nodes", help, waiting);
    }

    fn addresses(&mut self, control: &Control) {
        let samples = control.replica().read(|state| {
            let mut samples = Vec::new();
            for (id, network) in state.view().networks() {
                let name = network.spec.name.to_string();
                let mut sums = [("used", 0.0), ("free", 0.0), ("reserved", 0.0)];
                for usage in state.usage(*id).unwrap_or_default() {
                    let SubnetUsage { used, free, reserved, quarantined, .. } = usage;
                    // Quarantined addresses are handed out when nothing else is left.
                    sums[0].1 += used as f64;
                    sums[1].1 += (free + quarantined) as f64;
                    sums[2].1 += reserved as f64;
                }
                samples.extend(sums.map(|(use_, sum)| (vec![name.clone(), use_.to_owned()], sum)));
            }
            samples
        });
        self.family(
            "ipam_addresses",
            "Addresses of each network, by use",
            MetricType::Gauge,
            &["network", "use"],
            samples,
        );
    }
}

fn label(liveness: Liveness) -> String {
    liveness.as_str_name().trim_start_matches("LIVENESS_").to_ascii_lowercase()
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.0 {
            let Family { name, help, kind, labels, samples } = family;
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for (values, value) in samples {
                let labels: Vec<_> =
                    labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if labels.is_empty() {
                    sample(&mut metric, *kind, *value)?;
                } else {
                    sample(&mut metric.encode_family(&labels)?, *kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(metric: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}
