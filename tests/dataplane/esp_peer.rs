//! A switch against a peer that speaks ESP in UDP by the text of RFC 4303, RFC 4106 and RFC 3948,
//! with `aes-gcm` and none of this project's code for it: what a kernel with xfrm is to a user node.
//!
//! ```text
//!  memory port ── switch ── 127.77.7.x:4500 ═══ 127.77.7.y:4500 ── the peer below
//! ```
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::net::{IpAddr, SocketAddr};
use std::{net::UdpSocket, sync::Arc, time::Instant};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use anyhow::{Context, Result, anyhow, ensure};
use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    sa::Sa,
    user::{SwitchConfig, UserDataplane, engine::DropReason, ports::MemoryPort},
};
use overlay_types::{EndpointId, Epoch, NetworkId, NodeId, Spi, Vni};

use crate::{
    capture::{endpoint, frame, next_frame, on_loopback},
    probe::DEADLINE,
};

const VNI: u32 = 4243;
/// UDP port of VXLAN inside ESP.
const ENCRYPTED_VXLAN_PORT: u16 = 4788;
/// Next header: UDP.
const UDP: u8 = 17;
/// Next header of a dummy packet (RFC 4303 §2.6).
const NO_NEXT_HEADER: u8 = 59;

/// One direction as the RFCs have it.
#[derive(Clone, Copy)]
pub(crate) struct Association {
    pub(crate) spi: u32,
    key: [u8; 32],
    salt: [u8; 4],
}

/// What is in an ESP packet.
#[derive(Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) next_header: u8,
}

impl Association {
    const fn new(number: u8) -> Self {
        Self { spi: 0x0a0b_0c00 + number as u32, key: [number; 32], salt: [number, 2, 3, 4] }
    }

    /// The same as the switch is told it.
    fn sa(self, peer: IpAddr) -> Result<Sa> {
        let spi = Spi::new(self.spi).context("reserved")?;
        let id = SaId { peer: NodeId::from_u128(2), epoch: Epoch::new(1), spi };
        let keys = SaKeys { spi, key: AeadKey::from_bytes(self.key), salt: Salt(self.salt) };
        Ok(Sa { id, address: peer, keys: Arc::new(keys) })
    }

    /// RFC 4106 §4: the nonce is salt and IV.
    fn nonce(self, iv: [u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv);
        nonce
    }

    /// RFC 4106 §5: SPI and the extended sequence number, of which RFC 4303 §2.2.1 sends the low
    /// half only.
    fn associated_data(self, sequence: u64) -> Vec<u8> {
        [&self.spi.to_be_bytes()[..], &sequence.to_be_bytes()].concat()
    }

    /// RFC 4303 §2: SPI, sequence number, payload data (IV and ciphertext), ICV of 16 octets. Padding
    /// is 1, 2, 3, … and what is encrypted ends on four octets (§2.4).
    pub(crate) fn seal(
        self,
        sequence: u64,
        iv: [u8; 8],
        content: &Content,
        blocks: usize,
    ) -> Result<Vec<u8>> {
        let mut text = content.payload.clone();
        let padding = (text.len() + 2).wrapping_neg() % 4 + 4 * blocks;
        text.extend((1..).take(padding));
        text.extend([padding as u8, content.next_header]);
        let (nonce, aad) = (self.nonce(iv), self.associated_data(sequence));
        let sealed = Aes256Gcm::new(&self.key.into())
            .encrypt(&nonce.into(), Payload { msg: &text, aad: &aad })
            .map_err(|_| anyhow!("too long"))?;
        Ok([&self.spi.to_be_bytes()[..], &(sequence as u32).to_be_bytes(), &iv, &sealed].concat())
    }

    /// The reverse, of a packet whose sequence number has no high half yet.
    fn open(self, packet: &[u8]) -> Result<Content> {
        ensure!(
            packet.len().is_multiple_of(4) && packet.len() >= 16 + 4 + 16,
            "{} octets",
            packet.len()
        );
        let (header, sealed) = packet.split_at(16);
        ensure!(header[..4] == self.spi.to_be_bytes(), "another SPI");
        let sequence = u32::from_be_bytes(header[4..8].try_into()?);
        let (nonce, aad) =
            (self.nonce(header[8..].try_into()?), self.associated_data(sequence.into()));
        let mut text = Aes256Gcm::new(&self.key.into())
            .decrypt(&nonce.into(), Payload { msg: sealed, aad: &aad })
            .map_err(|_| anyhow!("the ICV is wrong"))?;
        let next_header = text.pop().context("no next header")?;
        let padding = usize::from(text.pop().context("no pad length")?);
        let payload = text.len().checked_sub(padding).context("more padding than text")?;
        ensure!(text.drain(payload..).eq((1..=255).take(padding)), "padding is not 1, 2, 3, …");
        Ok(Content { sequence, payload: text, next_header })
    }
}

/// UDP without a checksum, which is its sender's choice over IPv4 (RFC 768), and VXLAN (RFC 7348 §5).
pub(crate) fn encapsulate(frame: &[u8]) -> Content {
    let length = (8 + 8 + frame.len()) as u16;
    let udp = [50_000_u16, ENCRYPTED_VXLAN_PORT, length, 0].map(u16::to_be_bytes).concat();
    let vxlan = [0x0800_0000, VNI << 8].map(u32::to_be_bytes).concat();
    Content { sequence: 0, payload: [&udp[..], &vxlan, frame].concat(), next_header: UDP }
}

/// The switch, its endpoint's port, and the peer's socket.
pub(crate) struct Lab {
    pub(crate) dataplane: UserDataplane,
    pub(crate) port: MemoryPort,
    pub(crate) socket: UdpSocket,
    pub(crate) switch: SocketAddr,
    /// What the switch seals with.
    from_switch: Association,
    /// What the peer seals with.
    pub(crate) to_switch: Association,
}

/// `host` is the switch's last octet; the peer has the next one.
pub(crate) fn lab(host: u8) -> Result<Lab> {
    let address = |number| IpAddr::from([127, 77, 7, number]);
    let (switch, peer) = (address(host), address(host + 1));
    let (from_switch, to_switch) = (Association::new(1), Association::new(2));
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(VNI)?,
        encrypted: true,
        multicast: false,
        mtu: 1400,
        subnets: Vec::new(),
    });
    network.members.insert(peer);
    let ((mac, addresses), port) = (endpoint(1), PortKind::Memory);
    let id = EndpointId::from_u128(1);
    network.locals.insert(id, LocalEndpoint::new(mac, addresses, port));
    let (mac, addresses) = endpoint(2);
    let remote = RemoteEndpoint { mac, addresses, node: peer };
    network.remotes.insert(EndpointId::from_u128(2), remote);
    let mut desired = Desired::default();
    desired.networks.insert(NetworkId::from_u128(1), network);
    let (outbound, inbound) = (from_switch.sa(peer)?, to_switch.sa(peer)?);
    desired.sas.outbound.insert(outbound.id.peer, outbound);
    desired.sas.inbound.insert(inbound.id, inbound);

    let socket = UdpSocket::bind((peer, 4500))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let mut dataplane = UserDataplane::start(SwitchConfig::new(switch, 1))?;
    let ops = diff(&desired, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    dataplane.observe()?;
    let port = dataplane.take_memory_port(id).context("the port was just made")?;
    let switch = SocketAddr::new(switch, 4500);
    Ok(Lab { dataplane, port, socket, switch, from_switch, to_switch })
}

impl Lab {
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.dataplane.switch().counters().dropped(reason)
    }
}

#[test]
fn e06_an_esp_of_others_opens_what_the_switch_seals() -> Result<()> {
    on_loopback(|| {
        let lab = lab(1)?;
        let mut buffer = [0; 2000];
        for sequence in 1..=3 {
            let frame = frame(1, 2, &b"octets"[..sequence as usize]);
            lab.port.send(frame.clone())?;
            let (length, from) = lab.socket.recv_from(&mut buffer)?;
            // RFC 3948 §2.1: from and to port 4500.
            assert_eq!(from, lab.switch);
            let content = lab.from_switch.open(&buffer[..length])?;
            assert_eq!((content.sequence, content.next_header), (sequence, UDP));
            let expected = encapsulate(&frame).payload;
            // The inner source port and checksum are the sender's choice.
            assert_eq!(content.payload[2..6], expected[2..6]);
            assert_eq!(content.payload[8..], expected[8..]);
        }
        Ok(())
    })
}

#[test]
fn e06_the_switch_opens_what_an_esp_of_others_seals() -> Result<()> {
    on_loopback(|| {
        let mut lab = lab(3)?;
        let send = |packet: &[u8]| lab.socket.send_to(packet, lab.switch);
        // The sequence number crosses 2^32, the IV is none, and there is more padding than needed.
        let numbers = [(1, 0), (1 << 31, 1), ((1_u64 << 32) - 2, 2), ((1 << 32) + 1, 60)];
        for (number, blocks) in numbers {
            let frame = frame(2, 1, &number.to_be_bytes());
            let iv = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_ne_bytes();
            let packet = lab.to_switch.seal(number, iv, &encapsulate(&frame), blocks)?;
            send(&packet)?;
            assert_eq!(next_frame(&mut lab.port)?, frame, "sequence number {number}");
            send(&packet)?;
        }
        // RFC 3948 §2.3: a keepalive. RFC 4303 §2.6: a dummy packet.
        send(&[0xff])?;
        let dummy = Content { sequence: 0, payload: Vec::new(), next_header: NO_NEXT_HEADER };
        send(&lab.to_switch.seal((1 << 32) + 2, [7; 8], &dummy, 0)?)?;
        let begin = Instant::now();
        while lab.dropped(DropReason::EspGreeting) == 0 {
            ensure!(begin.elapsed() < DEADLINE, "the dummy packet did not come");
        }
        let counts = [DropReason::EspReplay, DropReason::NotEsp].map(|reason| lab.dropped(reason));
        assert_eq!(counts, [4, 1]);
        assert_eq!(lab.dataplane.switch().counters().drops().map(|(_, n)| n).sum::<u64>(), 6);
        Ok(())
    })
}
