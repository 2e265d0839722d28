//! What an endpoint sends in another's name goes nowhere, on both dataplanes alike: frames are put on
//! its interface as a container with `CAP_NET_RAW` puts them, and listened to at the others'.
//!
//! ```text
//!  forger ── node ──┬── near, on the same node
//!                   └── far, on another one
//! ```
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{
    net::UdpSocket,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use overlay_testkit::lab::{self, Namespace};
use overlay_types::MacAddr;
use smoltcp::{
    phy::{Device, Medium, RawSocket, RxToken, TxToken},
    time::Instant as Timestamp,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr,
        NdiscNeighborFlags, NdiscRepr,
    },
};

use crate::{
    kernel::{Endpoint, USER, Underlay, converge, inside},
    probe::{DEADLINE, ping},
};

/// Begins what is looked for in frames. A number follows.
const MARK: &str = "forged-frame-number-";
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 0x77];
const ADVERTISED: [u8; 2] = [136, 0];

/// One frame, and whether it may arrive.
struct Case {
    what: String,
    frame: Vec<u8>,
    arrives: bool,
}

/// An endpoint that speaks for itself or in another's name.
struct Speaker {
    mac: MacAddr,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Speaker {
    fn of(endpoint: &Endpoint) -> Result<Self> {
        let addresses = endpoint.addresses();
        let (v4, v6) = (addresses.v4.context("no IPv4")?, addresses.v6.context("no IPv6")?);
        Ok(Self { mac: endpoint.mac(), v4, v6 })
    }

    /// A datagram with content, from the address at hand.
    fn says(&self, to: &Self, content: &str, ipv6: bool) -> Result<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2(self.mac.0, to.mac.0);
        let mut frame = Vec::new();
        if ipv6 {
            let ip = ethernet.ipv6(self.v6.octets(), to.v6.octets(), 64);
            ip.udp(1000, 2000).write(&mut frame, content.as_bytes())?;
        } else {
            let ip = ethernet.ipv4(self.v4.octets(), to.v4.octets(), 64);
            ip.udp(1000, 2000).write(&mut frame, content.as_bytes())?;
        }
        Ok(frame)
    }

    /// ARP about `sender`, to one station or to all.
    fn arp(&self, to: Option<&Self>, sender: &Self, target: Ipv4Addr, content: &str) -> Vec<u8> {
        let operation = if to.is_some() { ArpOperation::Reply } else { ArpOperation::Request };
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(sender.mac.0),
            source_protocol_addr: sender.v4,
            target_hardware_addr: EthernetAddress(to.map_or([0; 6], |to| to.mac.0)),
            target_protocol_addr: target,
        };
        let mut octets = vec![0; arp.buffer_len()];
        arp.emit(&mut ArpPacket::new_unchecked(&mut octets));
        let destination = to.map_or([0xff; 6], |to| to.mac.0);
        // What fills the frame up is nobody's, and comes along.
        [&destination, &self.mac.0, &[8, 6][..], &octets, content.as_bytes()].concat()
    }

    /// Says to one station that it has `target`.
    fn advertises(&self, to: &Self, target: Ipv6Addr, content: &str) -> Vec<u8> {
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::OVERRIDE,
            target_addr: target,
            lladdr: None,
        });
        let mut octets = vec![0; message.buffer_len()];
        message.emit(
            &self.v6,
            &to.v6,
            &mut Icmpv6Packet::new_unchecked(&mut octets),
            &smoltcp::phy::ChecksumCapabilities::ignored(),
        );
        assert_eq!(octets[..2], ADVERTISED);
        octets.extend_from_slice(content.as_bytes());
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.mac.0, to.mac.0)
            .ipv6(self.v6.octets(), to.v6.octets(), 255)
            .write(&mut frame, etherparse::ip_number::IPV6_ICMP, &octets)
            .expect("a vector takes everything");
        frame
    }
}

fn case(cases: &mut Vec<Case>, arrives: bool, what: &str, frame: impl FnOnce(&str) -> Vec<u8>) {
    let content = format!("{MARK}{:04}", cases.len());
    cases.push(Case { what: what.to_owned(), frame: frame(&content), arrives });
}

/// What is forged to one station, each next to what may arrive there.
fn unicast(own: &Speaker, other: &Speaker, to: &Speaker) -> Vec<Case> {
    let all = &mut Vec::new();
    let says = |who: &Speaker, content: &str, ipv6| {
        who.says(to, content, ipv6).expect("a vector takes everything")
    };
    for ipv6 in [false, true] {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let as_other = Speaker { mac: own.mac, ..*other };
        let own_address = Speaker { mac: other.mac, ..*own };
        case(all, true, &format!("its own {family}"), |c| says(own, c, ipv6));
        case(all, false, &format!("another's {family}"), |c| says(&as_other, c, ipv6));
        case(all, false, "another's Ethernet address", |c| says(&own_address, c, ipv6));
        case(all, false, "another in all", |c| says(other, c, ipv6));
        for tag in [[0x81, 0], [0x88, 0xa8], [0x91, 0]] {
            case(all, false, &format!("a VLAN tag {tag:x?} on {family}"), |c| {
                let mut frame = says(own, c, ipv6);
                frame.splice(12..12, [tag[0], tag[1], 0, 5]);
                frame
            });
        }
    }
    case(all, false, "something that is no IP", |c| {
        let mut frame = says(own, c, false);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame
    });
    let link_local = "fe80::42:aff:fe00:177".parse().expect("an address");
    let unrouted = Speaker { v6: link_local, ..*own };
    case(all, false, "a link-local address of nobody", |c| says(&unrouted, c, true));
    case(all, false, "an advertisement for another", |c| own.advertises(to, other.v6, c));
    let as_other = Speaker { mac: own.mac, ..*other };
    case(all, false, "another's advertisement", |c| as_other.advertises(to, other.v6, c));
    case(all, false, "ARP that another has this station", |c| {
        own.arp(Some(to), &as_other, to.v4, c)
    });
    case(all, false, "another's ARP", |c| own.arp(Some(to), other, to.v4, c));
    case(all, true, "its own IPv4 again", |c| says(own, c, false));
    core::mem::take(all)
}

/// Puts frames on an endpoint's interface.
fn put(netns: &Namespace, frames: &[&[u8]]) -> Result<()> {
    netns.enter(|| {
        let mut socket = RawSocket::new("eth0", Medium::Ethernet)?;
        for frame in frames {
            let token = socket.transmit(Timestamp::ZERO).context("no room to send")?;
            token.consume(frame.len(), |octets| octets.copy_from_slice(frame));
        }
        Ok(())
    })
}

/// Listens to an endpoint's interface for frames that `holds`, until there is one that ends it.
/// `ready` hears of it when nothing will be missed any more.
fn listen(
    netns: &Namespace,
    ready: &SyncSender<()>,
    mut ends: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Vec<Vec<u8>>> {
    netns.enter(|| {
        let mut socket = RawSocket::new("eth0", Medium::Ethernet)?;
        ready.send(())?;
        let (begin, mut heard) = (Instant::now(), Vec::new());
        loop {
            ensure!(begin.elapsed() < DEADLINE, "the last frame did not arrive");
            let Some((token, _)) = socket.receive(Timestamp::ZERO) else {
                thread::yield_now();
                continue;
            };
            let frame = token.consume(<[u8]>::to_vec);
            let last = ends(&frame);
            heard.push(frame);
            if last {
                return Ok(heard);
            }
        }
    })
}

fn contains(frame: &[u8], content: &[u8]) -> bool {
    frame.windows(content.len()).any(|window| window == content)
}

/// Sends all cases and compares what arrives. The last of them has to.
fn check(from: &Endpoint, to: &Endpoint, cases: &[Case]) -> Result<()> {
    let number = |at: usize| format!("{MARK}{at:04}").into_bytes();
    let last = number(cases.len() - 1);
    let heard = hears(from, to, cases.iter().map(|case| &case.frame[..]).collect(), |frame| {
        contains(frame, &last)
    })?;
    for (at, case) in cases.iter().enumerate() {
        let arrived = heard.iter().any(|frame| contains(frame, &number(at)));
        ensure!(arrived == case.arrives, "{}: arrived {arrived}", case.what);
    }
    Ok(())
}

/// What is heard at `to` of what is put on the interface of `from`.
fn hears(
    from: &Endpoint,
    to: &Endpoint,
    frames: Vec<&[u8]>,
    ends: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Vec<Vec<u8>>> {
    let (ready, waits): (_, Receiver<()>) = sync_channel(1);
    thread::scope(|scope| {
        let ear = scope.spawn(move || listen(&to.netns, &ready, ends));
        // An ear that could not be opened says why when it is joined.
        if waits.recv().is_ok() {
            put(&from.netns, &frames)?;
        }
        ear.join().expect("the ear panicked")
    })
}

/// Who asks in another's name is not answered. ARP, then neighbour discovery.
fn asks(forger: &Endpoint, own: &Speaker, other: &Speaker, known: &Speaker) -> Result<()> {
    let as_other = Speaker { mac: own.mac, ..*other };
    let frames = [
        own.arp(None, &as_other, known.v4, ""),
        own.arp(None, other, known.v4, ""),
        own.arp(None, own, other.v4, ""),
    ];
    let reply =
        |target: Ipv4Addr| [&[0, 1, 8, 0, 6, 4, 0, 2][..], &[0; 6], &target.octets()].concat();
    let is_reply = |frame: &[u8], target: Ipv4Addr| {
        let wanted = reply(target);
        frame.get(14..22) == wanted.get(..8) && frame.get(28..32) == wanted.get(14..18)
    };
    let frames = frames.iter().map(|frame| &frame[..]).collect();
    let heard = hears(forger, forger, frames, |frame| is_reply(frame, other.v4))?;
    let forged = heard.iter().filter(|frame| is_reply(frame, known.v4)).count();
    ensure!(forged == 0, "{forged} answers to ARP in another's name");

    let solicit = |from: Ipv6Addr, target: Ipv6Addr| solicitation(own.mac, from, target);
    let frames = [solicit(other.v6, known.v6), solicit(own.v6, other.v6)];
    let frames = frames.iter().map(|frame| &frame[..]).collect();
    let is_answer = |frame: &[u8], target: Ipv6Addr| {
        frame.get(54..56) == Some(&ADVERTISED) && frame.get(62..78) == Some(&target.octets())
    };
    let heard = hears(forger, forger, frames, |frame| is_answer(frame, other.v6))?;
    let forged = heard.iter().filter(|frame| is_answer(frame, known.v6)).count();
    ensure!(forged == 0, "{forged} answers to solicitations in another's name");
    Ok(())
}

fn solicitation(mac: MacAddr, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message =
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, lladdr: None });
    let mut octets = vec![0; message.buffer_len()];
    message.emit(
        &from,
        &group,
        &mut Icmpv6Packet::new_unchecked(&mut octets),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0xff, a, b, c])
        .ipv6(from.octets(), group.octets(), 255)
        .write(&mut frame, etherparse::ip_number::IPV6_ICMP, &octets)
        .expect("a vector takes everything");
    frame
}

/// Frames that a member node sends for a station here.
fn from_member(underlay: &Underlay, from: &Endpoint, to: &Endpoint) -> Result<()> {
    let (own, target) = (Speaker::of(from)?, Speaker::of(to)?);
    let cases = &mut Vec::new();
    let says = |c: &str| own.says(&target, c, false).expect("a vector takes everything");
    case(cases, false, "a VLAN tag from a member", |c| {
        let mut frame = says(c);
        frame.splice(12..12, [0x81, 0, 0, 5]);
        frame
    });
    case(cases, true, "a frame from a member", says);
    let host = &underlay.hosts[usize::from(from.node) - 1];
    let last = format!("{MARK}0001").into_bytes();
    let (ready, waits) = sync_channel(1);
    let heard = thread::scope(|scope| {
        let ear = scope.spawn(|| listen(&to.netns, &ready, |frame| contains(frame, &last)));
        waits.recv()?;
        let address: IpAddr = underlay.address(from.node);
        let socket = host.enter(|| UdpSocket::bind((address, 0)))?;
        for case in &*cases {
            let header = [&[8, 0, 0, 0][..], &(70_000_u32 << 8).to_be_bytes()].concat();
            let datagram = [header, case.frame.clone()].concat();
            socket.send_to(&datagram, (underlay.address(to.node), 4789))?;
        }
        ear.join().expect("the ear panicked")
    })?;
    let tagged = format!("{MARK}0000").into_bytes();
    ensure!(!heard.iter().any(|frame| contains(frame, &tagged)), "{} arrived", cases[0].what);
    Ok(())
}

/// Groups hear who speaks from its own addresses, the link-local one included.
fn groups(own: &Speaker, other: &Speaker) -> Vec<Case> {
    let all = &mut Vec::new();
    let group = Speaker {
        mac: MacAddr(GROUP),
        v4: [239, 1, 1, 1].into(),
        v6: "ff02::77".parse().expect("a group"),
    };
    let mut to_group = |arrives, what: &str, v6: Ipv6Addr| {
        let speaker = Speaker { mac: own.mac, v4: own.v4, v6 };
        case(all, arrives, what, |c| speaker.says(&group, c, true).expect("room"));
    };
    let mut link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    link_local[8..11].copy_from_slice(&own.mac.0[..3]);
    link_local[13..].copy_from_slice(&own.mac.0[3..]);
    link_local[8] ^= 2;
    to_group(false, "another's address to a group", other.v6);
    to_group(true, "no address to a group", Ipv6Addr::UNSPECIFIED);
    to_group(true, "its link-local address to a group", link_local.into());
    to_group(false, "a link-local address of nobody to a group", "fe80::1".parse().expect("one"));
    to_group(true, "its own address to a group", own.v6);
    core::mem::take(all)
}

/// The fence keeps it out, and nothing else: without it, the frame arrives.
fn only_the_fence_holds(underlay: &Underlay, endpoints: &[Endpoint; 3]) -> Result<()> {
    let [forger, near, far] = endpoints;
    let (own, other, to) = (Speaker::of(forger)?, Speaker::of(far)?, Speaker::of(near)?);
    let as_other = Speaker { mac: own.mac, ..other };
    for holds in [false, true] {
        if holds {
            converge(&mut underlay.start(1)?, &underlay.desired(1, endpoints)?)?;
        } else {
            inside(1)?.run(&["nft", "flush", "ruleset"])?;
        }
        let cases = &mut Vec::new();
        let says = |who: &Speaker, c: &str| who.says(&to, c, false).expect("room");
        case(cases, !holds, &format!("another's IPv4, fence {holds}"), |c| says(&as_other, c));
        case(cases, true, "its own IPv4", |c| says(&own, c));
        check(forger, near, cases)?;
    }
    Ok(())
}

fn forged(node: u16) -> Result<()> {
    let underlay = Underlay::new(false)?;
    let endpoints =
        [Endpoint::new(node, 1, 11)?, Endpoint::new(node, 1, 12)?, Endpoint::new(2, 1, 21)?];
    let mut user = underlay.start_user()?;
    for multicast in [false, true] {
        for at in [1, 2] {
            let mut desired = underlay.desired(at, &endpoints)?;
            desired.networks.values_mut().for_each(|n| n.settings.multicast = multicast);
            converge(&mut underlay.start(at)?, &desired)?;
        }
        let mut desired = underlay.desired(USER, &endpoints)?;
        desired.networks.values_mut().for_each(|n| n.settings.multicast = multicast);
        converge(&mut user, &desired)?;
        let [forger, near, far] = &endpoints;
        let [own, beside, away] = [forger, near, far].map(Speaker::of);
        let (own, beside, away) = (own?, beside?, away?);
        for to in [near, far] {
            // Whoever is to answer knows how to.
            to.addresses().iter().try_for_each(|address| ping(&forger.netns, address))?;
        }
        check(forger, near, &unicast(&own, &away, &beside)).context("on the same node")?;
        check(forger, far, &unicast(&own, &beside, &away)).context("to another node")?;
        asks(forger, &own, &away, &beside)?;
        from_member(&underlay, far, forger)?;
        if node != USER && !multicast {
            only_the_fence_holds(&underlay, &endpoints)?;
        }
        if multicast {
            check(forger, near, &groups(&own, &beside)).context("to a group here")?;
            check(forger, far, &groups(&own, &beside)).context("to a group there")?;
        }
    }
    Ok(())
}

#[test]
fn n08_what_is_forged_at_a_kernel_node_goes_nowhere() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| forged(1)) }
}

#[test]
fn n08_what_is_forged_at_a_user_node_goes_nowhere() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| forged(USER)) }
}
