//! On a kernel with ESP: two hosts, one socket each, and what is on the wire between them.

use core::{net::IpAddr, time::Duration};
use std::{io::Read, net::UdpSocket, os::fd::AsRawFd, sync::Arc};

use nix::sys::socket::{MsgFlags, sendto};
use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{Encapsulation, Epoch, NodeId, Spi};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Esp, Leftovers, Protection};
use crate::sa::Sa;

/// The port that only ESP may carry.
const PORT: u16 = 4788;
const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    netns: Namespace,
    node: NodeId,
    address: IpAddr,
}

impl Host {
    fn protection(&self, encapsulation: Encapsulation) -> Protection {
        let esp = Esp { vxlan_port: PORT, encapsulation };
        self.netns.enter(|| Protection::start(self.address, esp, None)).unwrap()
    }

    fn socket(&self) -> UdpSocket {
        let socket = self.netns.enter(|| UdpSocket::bind((self.address, PORT))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

fn hosts(over_ipv6: bool) -> [Host; 2] {
    let hosts = [1_u8, 2].map(|number| {
        let address: IpAddr = if over_ipv6 {
            [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into()
        } else {
            [192, 0, 2, number].into()
        };
        Host { netns: Namespace::new().unwrap(), node: NodeId::from_u128(number.into()), address }
    });
    hosts[0].netns.connect("cable", &hosts[1].netns, "cable").unwrap();
    for host in &hosts {
        let length = if over_ipv6 { "64 nodad" } else { "24" };
        host.netns.ip(&format!("address add {}/{length} dev cable", host.address)).unwrap();
    }
    hosts
}

/// What `from` sends to `to` with in an epoch, as the host `at` knows it.
fn association(from: &Host, to: &Host, at: &Host, epoch: u64) -> Sa {
    let number = 0x1000 + epoch as u32 * 16 + u32::from(from.node.to_u128() as u16);
    let spi = Spi::new(number).unwrap();
    let key = AeadKey::from_bytes([number as u8; 32]);
    let keys = Arc::new(SaKeys { spi, key, salt: Salt([7; 4]) });
    let peer = if at.node == from.node { to } else { from };
    Sa { id: SaId { peer: peer.node, epoch: Epoch::new(epoch), spi }, address: peer.address, keys }
}

fn install(a: &Host, b: &Host, at: &Host, protection: &mut Protection, epoch: u64) {
    let (inbound, outbound) = if at.node == a.node { (b, a) } else { (a, b) };
    let other = outbound_peer(a, b, at);
    protection.add_inbound(&association(inbound, at, at, epoch)).unwrap();
    assert!(protection.set_outbound(&association(outbound, other, at, epoch)).unwrap());
}

fn outbound_peer<'a>(a: &'a Host, b: &'a Host, at: &Host) -> &'a Host {
    if at.node == a.node { b } else { a }
}

fn sends(from: &UdpSocket, to: &UdpSocket, text: &[u8]) {
    from.send_to(text, to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 100];
    let (length, source) = to.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], text);
    assert_eq!(source, from.local_addr().unwrap());
}

fn check(over_ipv6: bool, encapsulation: Encapsulation) {
    let [a, b] = hosts(over_ipv6);
    let before = [&a, &b].map(|host| host.netns.ip("xfrm state").unwrap());
    let mut protections = [&a, &b].map(|host| host.protection(encapsulation));
    let (from, to) = (a.socket(), b.socket());
    sends(&from, &to, b"nothing is enforced yet");
    for (host, protection) in [&a, &b].iter().zip(&mut protections) {
        assert!(!protection.is_enforced().unwrap());
        protection.enforce().unwrap();
        assert!(protection.is_enforced().unwrap());
        protection.enforce().unwrap();
        install(&a, &b, host, protection, 1);
    }
    sends(&from, &to, b"sealed");
    sends(&to, &from, b"and back");
    for protection in &mut protections {
        protection.observe().unwrap();
        assert_eq!(protection.heard().count(), 1);
        assert_eq!(protection.outbound_use().map(|(_, packets, _)| packets).sum::<u64>(), 1);
        assert_eq!(protection.inbound().len(), 1);
        assert_eq!(protection.outbound().len(), 1);
    }
    for protection in &mut protections {
        protection.clear().unwrap();
    }
    assert_eq!([&a, &b].map(|host| host.netns.ip("xfrm state").unwrap()), before);
    assert_eq!([&a, &b].map(|host| host.netns.ip("xfrm policy").unwrap()), [""; 2]);
}

#[test]
fn e01_e05_what_goes_to_the_encrypted_port_is_sealed_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    for over_ipv6 in [false, true] {
        for encapsulation in [Encapsulation::Udp(4500), Encapsulation::None] {
            check(over_ipv6, encapsulation);
        }
    }
}

/// What has two hosts say all to each other that goes to the port of encrypted networks by ESP in UDP.
fn protect(a: &Host, b: &Host) -> [Protection; 2] {
    [a, b].map(|host| {
        let mut protection = host.protection(Encapsulation::Udp(4500));
        protection.enforce().unwrap();
        install(a, b, host, &mut protection, 1);
        protection
    })
}

/// As where the rules of the host are made anew at that moment.
#[test]
fn e03_a_greeting_that_could_not_leave_is_sent_again_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    let [a, b] = hosts(false);
    let [mut near, _far] = protect(&a, &b);
    let hearing = b.socket();
    let rule = format!(
        "table ip shut {{ chain out {{ type filter hook output priority 0; udp dport {PORT} drop; }}; }}"
    );
    a.netns.run(&["nft", &rule]).unwrap();
    near.greet(b.node);
    a.netns.run(&["nft", "delete table ip shut"]).unwrap();
    near.observe().unwrap();
    assert_eq!(hearing.recv(&mut [0; 8]).unwrap(), 0, "the greeting");
    near.observe().unwrap();
    sends(&a.socket(), &hearing, b"nothing else was sent");
}

/// A nonce that is used twice gives the plaintext away (RFC 4106 §3).
#[test]
fn e01_what_somebody_flushes_comes_back_behind_its_last_number_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    let [a, b] = hosts(false);
    let mut protections = protect(&a, &b);
    let (from, to) = (a.socket(), b.socket());
    let numbers = || a.netns.ip("xfrm state").unwrap();
    // Also one that was not looked at since it was made.
    for round in 1..=3_u64 {
        sends(&from, &to, b"sealed");
        a.netns.ip("xfrm state flush").unwrap();
        protections[0].observe().unwrap();
        assert!(protections[0].outbound().is_empty());
        install(&a, &b, &a, &mut protections[0], 1);
        let last = round * (1 << 31);
        let shown = format!("oseq-hi {:#x}, oseq {:#x}", last >> 32, last as u32);
        assert!(numbers().contains(&shown), "{shown}: {}", numbers());
    }
    sends(&from, &to, b"sealed");
    protections[0].observe().unwrap();
    a.netns.ip("xfrm state flush").unwrap();
    protections[0].observe().unwrap();
    install(&a, &b, &a, &mut protections[0], 1);
    sends(&from, &to, b"sealed");
}

/// moby 52005: Docker's 32-bit numbers end, and with them the traffic.
#[test]
fn e03_moby_52005_numbers_cross_2_32_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    for over_ipv6 in [false, true] {
        let [a, b] = hosts(over_ipv6);
        let mut protections = [&a, &b].map(|host| host.protection(Encapsulation::Udp(4500)));
        let (from, to) = (a.socket(), b.socket());
        for (host, protection) in [&a, &b].iter().zip(&mut protections) {
            protection.enforce().unwrap();
            install(&a, &b, host, protection, 1);
        }
        sends(&from, &to, b"sealed");
        let id = association(&a, &b, &a, 1).id;
        // Half way first: the receiver guesses the upper half.
        for last in [1 << 31, (1 << 32) - 20] {
            a.netns.ip("xfrm state flush").unwrap();
            protections[0].observe().unwrap();
            protections[0].pretend_sealed(id, last);
            install(&a, &b, &a, &mut protections[0], 1);
            sends(&from, &to, b"sealed");
        }
        for number in 0..40_u8 {
            sends(&from, &to, &[number]);
        }
        let shown = a.netns.ip("xfrm state").unwrap();
        assert!(shown.contains("oseq-hi 0x1, oseq 0x15"), "{shown}");
    }
}

/// Frames of a host's cable.
fn tap(host: &Host) -> Socket {
    let everything = Some(Protocol::from(i32::from(0x0003_u16.to_be())));
    let socket = host.netns.enter(|| Socket::new(Domain::PACKET, Type::RAW, everything)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What was recorded before associations were flushed is not let in behind them.
#[test]
fn e01_a_flush_opens_no_way_for_a_replay_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    let [a, b] = hosts(false);
    let mut protections = protect(&a, &b);
    let (from, to) = (a.socket(), b.socket());
    let mut recorder = tap(&b);
    sends(&from, &to, b"recorded");
    let mut frame = vec![0; 2000];
    let recorded = loop {
        let length = recorder.read(&mut frame).unwrap();
        // IPv4 with UDP to port 4500.
        if frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == 4500_u16.to_be_bytes() {
            break frame[..length].to_vec();
        }
    };
    let device = a.netns.enter(|| {
        let mut devices = nix::ifaddrs::getifaddrs().unwrap();
        devices.find_map(|d| {
            d.address?.as_link_addr().copied().filter(|_| d.interface_name == "cable")
        })
    });
    let (player, device) = (tap(&a), device.unwrap());
    let replay = || {
        sendto(player.as_raw_fd(), &recorded, &device, MsgFlags::empty()).unwrap();
    };
    to.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 100];
    replay();
    assert!(to.recv(&mut buffer).is_err(), "the window keeps it out");
    protections[1].observe().unwrap();
    b.netns.ip("xfrm state flush").unwrap();
    protections[1].observe().unwrap();
    install(&a, &b, &b, &mut protections[1], 1);
    replay();
    assert!(to.recv(&mut buffer).is_err(), "and still does");
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    sends(&from, &to, b"what follows is let in");
    protections[1].observe().unwrap();
    let traffic = protections[1].traffic()[&a.node];
    // Figures begin anew when associations are flushed.
    assert_eq!((traffic.packets_in, traffic.replays), (1, 1), "{traffic:?}");
}

/// An SPI is a hash: two peers can have the same one.
#[test]
fn e02_an_association_of_another_peer_is_not_taken_away_with_esp() {
    if lab::skip() || lab::skip_without_esp() {
        return;
    }
    let [a, b] = hosts(false);
    let mut protection = a.protection(Encapsulation::None);
    let sa = association(&b, &a, &a, 1);
    protection.add_inbound(&sa).unwrap();
    let id = SaId { peer: NodeId::from_u128(9), ..sa.id };
    let other = Sa { id, address: [192, 0, 2, 9].into(), ..sa.clone() };
    assert!(protection.add_inbound(&other).is_err());
    protection.observe().unwrap();
    assert_eq!(protection.inbound(), [(sa.id, sa.address)].into());
}

/// A policy of somebody else, and of its associations.
const OTHERS: &str = "xfrm policy add src 198.51.100.1 dst 198.51.100.2 dir out \
                      tmpl proto esp mode transport reqid 7";

/// As after a leave that was cut off. Also on a kernel without ESP, which has policies.
#[test]
fn d07_what_a_process_before_left_is_swept_and_nothing_of_others() {
    if lab::skip() {
        return;
    }
    let [a, b] = hosts(false);
    a.netns.ip(OTHERS).unwrap();
    let state = || a.netns.ip("xfrm policy").unwrap() + &a.netns.ip("xfrm state").unwrap();
    let before = state();
    let mut protection = a.protection(Encapsulation::None);
    protection.enforce().unwrap();
    if lab::has_esp(&b.netns).is_ok() {
        protection.add_inbound(&association(&b, &a, &a, 1)).unwrap();
    }
    drop(protection);
    assert_ne!(state(), before);
    let sweep = || a.netns.enter(Leftovers::find).unwrap().unwrap().remove().unwrap();
    sweep();
    assert_eq!(state(), before);
    sweep();
    assert_eq!(state(), before);
}
