//! Periods and bounds of the protocol.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

/// Largest UDP payload that is sent or accepted, in bytes.
///
/// IPv6 promises 1280 bytes end to end (RFC 8200 §5); 1232 remain after IPv6 and UDP headers, so no
/// gossip datagram is ever fragmented or lost to a small path MTU.
pub const MAX_DATAGRAM: usize = 1232;

/// Largest message on a stream, in bytes: the exchange of [`MAX_MEMBERS`] members fits.
pub const MAX_STREAM_MESSAGE: usize = 1 << 20;

/// Members that are kept, dead ones included: as many as the key ring keeps senders, which is half as
/// many again as the design must carry.
pub const MAX_MEMBERS: usize = overlay_crypto::keyring::MAX_SENDERS;

/// Seeds, and addresses named by the managers, that are kept.
pub const MAX_HINTS: usize = MAX_MEMBERS;

/// Removed nodes that are refused: as many as there can be members, should all be replaced between two
/// rotations of the gossip key.
pub const MAX_REMOVED: usize = MAX_MEMBERS;

/// How a [`crate::Gossip`] keeps time. All members of a cluster should agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipConfig {
    /// Each member probes one other member this often. 1 s, as SWIM's authors and memberlist do.
    pub probe_period: Duration,
    /// How long a probe may take before others, and a stream, are asked for a second opinion.
    /// Must be well below `probe_period`, for the second opinion has what remains of it. 300 ms:
    /// more than a round trip around the world.
    pub probe_timeout: Duration,
    /// How long a suspected member of a cluster of up to ten has to object before it is declared
    /// dead; grows with the logarithm of the members. 3 s: news reach everyone in under one.
    pub suspicion: Duration,
    /// How often news are passed on. 200 ms, as memberlist does in a LAN.
    pub gossip_period: Duration,
    /// How often addresses that should be members and are not (seeds, what managers name, the dead)
    /// are greeted. 2 s: islands re-merge within 10 s also when a greeting or two are lost.
    pub greeting_period: Duration,
    /// How many of those addresses are greeted each time.
    pub greetings: NonZeroUsize,
    /// How often everything known is exchanged with a random member. 15 s, and half as much either
    /// way by chance, so that members do not fall into step.
    pub exchange_period: Duration,
    /// How long the dead are remembered. A day: longer than any stale news of them travels.
    pub forget_dead_after: Duration,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            suspicion: Duration::from_secs(3),
            gossip_period: Duration::from_millis(200),
            greeting_period: Duration::from_secs(2),
            greetings: const { NonZeroUsize::new(3).unwrap() },
            exchange_period: Duration::from_secs(15),
            forget_dead_after: Duration::from_hours(24),
        }
    }
}

impl GossipConfig {
    /// How long a suspected member has to object in a cluster of this many.
    pub fn suspicion_among(&self, members: usize) -> Duration {
        self.suspicion.mul_f64(decades(members).max(1.0))
    }

    /// foca's configuration for a cluster of this many, with packets of at most `max_packet` bytes.
    #[expect(clippy::cast_sign_loss, reason = "clamped to 8-32")]
    pub(crate) fn foca(&self, members: usize, max_packet: NonZeroUsize) -> foca::Config {
        // News that each member passes on k times miss about e^-k of them (SIR epidemics), so k = 12
        // for ten members, and 4 more per power of ten. Few news travel at a time: it costs little.
        let transmissions = (8.0 + 4.0 * decades(members).ceil().max(1.0)).clamp(8.0, 32.0);
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: const { NonZeroUsize::new(3).unwrap() },
            max_transmissions: NonZeroU8::new(transmissions as u8).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion_among(members),
            remove_down_after: Some(self.forget_dead_after),
            max_packet_size: max_packet,
            notify_down_members: true,
            // Greetings and exchanges, which also work from zero members, replace both.
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_period,
                num_members: const { NonZeroUsize::new(3).unwrap() },
            }),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the logarithm of a count needs three digits")]
fn decades(members: usize) -> f64 {
    (members.max(1) as f64).log10()
}
