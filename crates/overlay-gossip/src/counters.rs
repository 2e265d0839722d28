//! What was dropped, and why; what was sent and received.

use std::fmt;

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a datagram or stream message had no effect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as a metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drops! {
    /// Longer than any message may be.
    Oversized => "oversized",
    /// Shorter than its header says, or than any message.
    Truncated => "truncated",
    /// Another version of the sealed format or of the messages in it.
    UnknownVersion => "unknown-version",
    /// Sealed with a key that is not in the ring: a rotation was missed here, or there.
    UnknownEpoch => "unknown-epoch",
    /// The tag is wrong: forged or damaged.
    Unauthentic => "unauthentic",
    /// Its counter was seen before, or is too old to tell.
    Replayed => "replayed",
    /// From before the sender's restart.
    StaleIncarnation => "stale-incarnation",
    /// More senders than are kept.
    SenderTableFull => "sender-table-full",
    /// Authentic, but makes no sense.
    Malformed => "malformed",
    /// Speaks for another member than the one that sealed it.
    Impersonation => "impersonation",
    /// From a node that was removed from the cluster.
    Removed => "removed",
    /// Sealed by this node itself: a reflection, or two hosts with one identity.
    FromSelf => "from-self",
    /// Meant for another node, or for this node before a restart.
    NotForUs => "not-for-us",
    /// Would make more members than are kept.
    MemberTableFull => "member-table-full",
    /// Arrived after this node had left.
    AfterLeave => "after-leave",
    /// To be sent, but too much was waiting already.
    OutputFull => "output-full",
    /// To be sent, but could not be sealed.
    SealFailed => "seal-failed",
    /// A stream ended, stalled or failed before its message was complete.
    StreamBroken => "stream-broken",
    /// A connection was refused because too many were open.
    TooManyStreams => "too-many-streams",
    /// The socket refused to send.
    SendFailed => "send-failed",
}

/// Counts since the start. Only grow.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams that were accepted.
    pub datagrams_in: u64,
    /// Datagrams handed out for sending.
    pub datagrams_out: u64,
    /// Stream messages that were accepted.
    pub streams_in: u64,
    /// Stream messages handed out for sending.
    pub streams_out: u64,
    /// Times that a probe was answered only by the stream: UDP is broken where TCP is not.
    pub saved_by_stream: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// How much was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// The reasons for which anything was dropped, with how much.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.dropped(*r))).filter(|(_, count)| *count > 0)
    }

    /// How much was dropped in all.
    pub fn total_dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    pub(crate) fn drop_one(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Adds what the shell dropped before the core saw it.
    pub(crate) fn add_drops(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"datagrams-in", &self.datagrams_in);
        map.entry(&"datagrams-out", &self.datagrams_out);
        map.entry(&"streams-in", &self.streams_in);
        map.entry(&"streams-out", &self.streams_out);
        map.entry(&"saved-by-stream", &self.saved_by_stream);
        map.entries(self.drops().map(|(reason, count)| (reason.label(), count))).finish()
    }
}
