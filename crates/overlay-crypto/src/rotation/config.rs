//! Times and limits.

use core::time::Duration;

/// Times and limits of a [`Rotation`](super::Rotation).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationConfig {
    /// How long before a retired epoch is erased to stop preferring it for sending: longer than any
    /// two nodes are apart in what they know. Default 60 s.
    pub send_margin: Duration,
    /// How long an epoch is kept after a newer one became active, if nobody says when it is drained.
    /// Default 10 min.
    pub default_drain: Duration,
    /// When to publish or report again if the replicated state does not show it. Default 5 s.
    pub retry_interval: Duration,
    /// Packets under one key after which a rotation is asked for. Default 2^36: far below what wears
    /// out 64-bit counters, and a day at 800 000 packets a second.
    pub packet_limit: u64,
    /// Bytes under one key after which a rotation is asked for. Default 2^46: an attacker's advantage
    /// stays below 2^-44 (NIST SP 800-38D appendix B).
    pub byte_limit: u64,
}

impl Default for RotationConfig {
    fn default() -> Self {
        Self {
            send_margin: Duration::from_mins(1),
            default_drain: Duration::from_mins(10),
            retry_interval: Duration::from_secs(5),
            packet_limit: 1 << 36,
            byte_limit: 1 << 46,
        }
    }
}
