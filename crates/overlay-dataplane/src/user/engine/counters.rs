//! What the engine counts: every drop by its reason, and what it did.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name as it stands in metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

counted! {
    /// Why a frame or datagram was dropped.
    DropReason {
        /// A frame came from a port that the tables do not have.
        UnknownPort = "unknown_port",
        /// Shorter than its headers, or with fields that contradict each other.
        Malformed = "malformed",
        /// A VLAN tag: overlay networks have none.
        VlanTagged = "vlan_tagged",
        /// Neither IPv4 nor IPv6 nor ARP.
        EtherType = "ethertype",
        /// An endpoint used a source MAC that is not its own.
        SpoofedMac = "spoofed_mac",
        /// An endpoint used a source IP address that is not its own.
        SpoofedIp = "spoofed_ip",
        /// No endpoint of the network has the destination MAC.
        UnknownUnicast = "unknown_unicast",
        /// Broadcast or multicast on a network that does not carry it.
        Group = "group",
        /// ARP other than a request for an address of the network.
        Arp = "arp",
        /// Neighbor discovery other than a solicitation for an address of the network.
        NeighborDiscovery = "neighbor_discovery",
        /// Larger than the network's MTU; IP senders were told.
        Oversized = "oversized",
        /// Routed by the switch, with no hop left; the sender was told.
        TimeExceeded = "time_exceeded",
        /// To the gateway, for an address that no endpoint of the network has.
        NoRoute = "no_route",
        /// To a virtual or gateway address, with nothing that answers; the sender was told.
        NoListener = "no_listener",
        /// To a service without a backend that takes new flows; the sender was told.
        NoBackend = "no_backend",
        /// A later fragment to or from a virtual address whose first fragment was not seen.
        FragmentWithoutFlow = "fragment_without_flow",
        /// No source port left for one more flow between a client and a backend.
        PortsExhausted = "ports_exhausted",
        /// A datagram on the VXLAN port that is not VXLAN.
        NotVxlan = "not_vxlan",
        /// A VNI that no endpoint here is on.
        UnknownVni = "unknown_vni",
        /// The source address is not the data-path address of a member node.
        NotMember = "not_member",
        /// The source MAC is not that of an endpoint on the sending node.
        ForeignMac = "foreign_mac",
        /// The destination MAC is not that of an endpoint here.
        NotLocal = "not_local",
        /// A frame of an encrypted network came in clear.
        ClearOnEncrypted = "clear_on_encrypted",
        /// A frame of a plain network came inside ESP.
        SealedOnPlain = "sealed_on_plain",
        /// No association to seal with for the peer.
        NoOutboundSa = "no_outbound_sa",
        /// An SPI that no association has.
        UnknownSpi = "unknown_spi",
        /// A wrong tag, or a packet too short to have one.
        EspInvalid = "esp_invalid",
        /// A sequence number that was seen, or is too old to tell.
        EspReplay = "esp_replay",
        /// A good tag around something else than VXLAN on the encrypted port.
        EspContent = "esp_content",
        /// A datagram with nothing in it, or a dummy packet (RFC 4303 §2.6), by which a peer shows that
        /// it has our keys; not a fault.
        EspGreeting = "esp_greeting",
        /// A good tag, from another address than the peer's.
        EspPeer = "esp_peer",
        /// IKE, keepalives and whatever else comes on the ESP port.
        NotEsp = "not_esp",
        /// An association has spent its sequence numbers.
        SaSpent = "sa_spent",
        /// The ring of a memory port was full.
        PortFull = "port_full",
        /// A TAP device refused a frame.
        PortError = "port_error",
        /// The socket's send buffer was full.
        SocketFull = "socket_full",
        /// The socket refused a datagram: no route, not permitted, too long for the path.
        SocketError = "socket_error",
    }
}

counted! {
    /// What the engine did.
    Event {
        /// Frames taken from ports; a super-frame counts once.
        FramesIn = "frames_in",
        /// Frames given to ports; a super-frame counts once.
        FramesOut = "frames_out",
        /// Datagrams taken from sockets.
        DatagramsIn = "datagrams_in",
        /// Datagrams given to sockets.
        DatagramsOut = "datagrams_out",
        /// ARP requests and neighbor solicitations answered.
        NeighborAnswers = "neighbor_answers",
        /// Endpoints told of an address that is new, each time.
        Announcements = "announcements",
        /// Pings to virtual and gateway addresses answered.
        EchoAnswers = "echo_answers",
        /// ICMP errors sent to endpoints.
        IcmpErrors = "icmp_errors",
        /// Flows to services begun.
        FlowsBegun = "flows_begun",
        /// Flows that ended by idling.
        FlowsExpired = "flows_expired",
        /// Flows pushed out of a full table.
        FlowsEvicted = "flows_evicted",
        /// Flows that ended because their backend is gone.
        FlowsCut = "flows_cut",
    }
}

/// Counters that one thread writes and any thread reads.
#[derive(Debug)]
pub struct Counters {
    drops: [AtomicU64; DropReason::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: core::array::from_fn(|_| AtomicU64::new(0)),
            events: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// One writer, so load and store instead of a locked add.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl Counters {
    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// How often `event` happened.
    pub fn happened(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// Every drop reason with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason)))
    }

    /// Every event with its count.
    pub fn events(&self) -> impl Iterator<Item = (Event, u64)> {
        Event::ALL.iter().map(|event| (*event, self.happened(*event)))
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    pub(crate) fn count_drops(&self, reason: DropReason, count: u64) {
        add(&self.drops[reason as usize], count);
    }

    pub(crate) fn count(&self, event: Event) {
        self.count_many(event, 1);
    }

    pub(crate) fn count_many(&self, event: Event, count: u64) {
        add(&self.events[event as usize], count);
    }
}
