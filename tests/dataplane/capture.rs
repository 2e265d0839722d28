//! Two switches on loopback with memory ports: a frame crosses real sockets, and tshark reads what
//! was captured of it.

#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::{net::IpAddr, time::Duration};
use std::{
    fs::File,
    path::Path,
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    user::{
        SwitchConfig, UserDataplane,
        capture::{Captured, Direction, PcapWriter},
        ports::MemoryPort,
    },
};
use overlay_testkit::lab::Namespace;
use overlay_types::{Addresses, EndpointId, MacAddr, NetworkId, Vni};

use crate::probe::DEADLINE;

/// Datagrams of garbage, half of them to each port.
const GARBAGE: u32 = 500;

fn node(number: u8) -> IpAddr {
    IpAddr::from([127, 77, 2, number])
}

pub(crate) fn endpoint(number: u8) -> (MacAddr, Addresses) {
    let v4 = [10, 0, 1, number].into();
    (MacAddr::from_ipv4(v4), Addresses { v4: Some(v4), v6: None })
}

/// A running dataplane of node `number` with one endpoint of the same number.
fn start(number: u8) -> Result<(UserDataplane, MemoryPort)> {
    let other = 3 - number;
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(4242)?,
        encrypted: false,
        multicast: false,
        mtu: 1400,
        subnets: Vec::new(),
    });
    network.members.insert(node(other));
    let ((mac, addresses), port) = (endpoint(number), PortKind::Memory);
    let id = EndpointId::from_u128(number.into());
    network.locals.insert(id, LocalEndpoint::new(mac, addresses, port));
    let (mac, addresses) = endpoint(other);
    let remote = RemoteEndpoint { mac, addresses, node: node(other) };
    network.remotes.insert(EndpointId::from_u128(other.into()), remote);
    let mut desired = Desired::default();
    desired.networks.insert(NetworkId::from_u128(1), network);
    let mut dataplane = UserDataplane::start(SwitchConfig::new(node(number), 1))?;
    let ops = diff(&desired, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    dataplane.observe()?;
    let port = dataplane.take_memory_port(id).context("the port was just made")?;
    Ok((dataplane, port))
}

pub(crate) fn frame(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(endpoint(from).0.0, endpoint(to).0.0)
        .ipv4([10, 0, 1, from], [10, 0, 1, to], 64)
        .udp(1000, 2000)
        .write(&mut frame, payload)
        .expect("a vector takes everything");
    frame
}

/// Runs a test on a loopback device of its own where namespaces can be made, else on the host's.
pub(crate) fn on_loopback(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    match Namespace::new() {
        Ok(namespace) => namespace.enter(test),
        Err(_) => test(),
    }
}

#[test]
fn d02_a_frame_crosses_sockets_and_tshark_reads_the_capture() -> Result<()> {
    on_loopback(cross_and_capture)
}

#[test]
fn r06_garbage_on_both_ports_is_counted_and_survived() -> Result<()> {
    on_loopback(send_garbage)
}

/// The next frame at `port`, or an error when none comes.
pub(crate) fn next_frame(port: &mut MemoryPort) -> Result<Vec<u8>> {
    let begin = Instant::now();
    loop {
        if let Some(frame) = port.try_recv()? {
            return Ok(frame);
        }
        ensure!(begin.elapsed() < DEADLINE, "no frame came");
        thread::yield_now();
    }
}

fn cross_and_capture() -> Result<()> {
    let (a, port_a) = start(1)?;
    let (_b, mut port_b) = start(2)?;
    let (show, seen) = mpsc::channel();
    a.switch().capture(Some(Box::new(move |captured: Captured<'_>| {
        let Captured { direction, source, destination, payload } = captured;
        // The receiver lives as long as the test.
        let _ = show.send((direction, source, destination, payload.to_vec()));
    })))?;
    a.switch().barrier()?;
    let frame = frame(1, 2, b"captured");
    port_a.send(frame.clone())?;
    ensure!(next_frame(&mut port_b)? == frame, "another frame arrived");
    let (direction, source, destination, payload) = seen.recv()?;
    assert_eq!((direction, destination), (Direction::Sent, (node(2), 4789).into()));
    assert!(source.ip() == node(1) && source.port() >= 49_152);

    let path = std::env::temp_dir().join(format!("overlay-capture-{}.pcap", std::process::id()));
    let mut pcap = PcapWriter::new(File::create(&path)?)?;
    let captured = Captured { direction, source, destination, payload: &payload };
    pcap.write(Duration::from_secs(1_700_000_000), &captured)?;
    pcap.finish()?;
    let read = dissect(&path, &["vxlan.vni", "udp.dstport", "ip.dst"]);
    std::fs::remove_file(&path)?;
    let Some(text) = read? else { return Ok(()) };
    assert_eq!(
        text.trim().split('\t').collect::<Vec<_>>(),
        ["4242", "4789,2000", "127.77.2.2,10.0.1.2"]
    );
    Ok(())
}

/// What tshark reads in a file, field by field. `None`, which is said, where there is none.
fn dissect(path: &Path, fields: &[&str]) -> Result<Option<String>> {
    let fields = fields.iter().flat_map(|field| ["-e", field]);
    let read =
        Command::new("tshark").arg("-r").arg(path).args(["-T", "fields"]).args(fields).output();
    let Ok(read) = read else {
        let must = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        ensure!(!must, "tshark is missing (Debian: apt install tshark)");
        #[expect(clippy::print_stderr, reason = "a test that proves less must say so")]
        {
            eprintln!("SKIPPED what tshark reads: it is missing (Debian: apt install tshark)");
        }
        return Ok(None);
    };
    Ok(Some(String::from_utf8(read.stdout)?))
}

#[test]
fn e05_a_capture_has_what_travels_as_ip_protocol_50() -> Result<()> {
    // SPI, sequence number, and what is sealed.
    let packet = [&[0x12, 0x34, 0x56, 0x78, 0, 0, 0, 9][..], &[0xa5; 48]].concat();
    let ends: [[IpAddr; 2]; 2] =
        [["192.0.2.1".parse()?, "192.0.2.2".parse()?], ["fd99::1".parse()?, "fd99::2".parse()?]];
    let path = std::env::temp_dir().join(format!("overlay-esp-{}.pcap", std::process::id()));
    let mut pcap = PcapWriter::new(File::create(&path)?)?;
    for [source, destination] in ends {
        let (source, destination) = ((source, 0).into(), (destination, 0).into());
        let direction = Direction::Sent;
        let captured = Captured { direction, source, destination, payload: &packet };
        pcap.write(Duration::from_secs(1_700_000_000), &captured)?;
    }
    pcap.finish()?;
    let octets = std::fs::read(&path)?;
    // The file's header, and in front of each packet its own and that of IP: nothing of UDP.
    assert_eq!(octets.len(), 24 + (16 + 20 + packet.len()) + (16 + 40 + packet.len()));
    let fields = ["ip.proto", "ip.dst", "ipv6.nxt", "ipv6.dst", "esp.spi", "esp.sequence"];
    let read = dissect(&path, &fields);
    std::fs::remove_file(&path)?;
    let Some(text) = read? else { return Ok(()) };
    let lines: Vec<_> = text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    let [v4, v6] = ["50|192.0.2.2|||0x12345678|9", "||50|fd99::2|0x12345678|9"];
    assert_eq!(lines, [v4, v6].map(|line| line.split('|').collect::<Vec<_>>()));
    Ok(())
}

fn send_garbage() -> Result<()> {
    let address = IpAddr::from([127, 77, 3, 1]);
    let mut dataplane = UserDataplane::start(SwitchConfig::new(address, 1))?;
    let socket = std::net::UdpSocket::bind("127.77.3.2:0")?;
    let mut state = 7_u32;
    for number in 0..GARBAGE {
        let length = (number * 37 % 3000) as usize;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        socket.send_to(&bytes, (address, if number % 2 == 0 { 4789 } else { 4500 }))?;
    }
    let counters = Arc::clone(dataplane.switch().counters());
    let dropped = || counters.drops().map(|(_, count)| count).sum::<u64>();
    let begin = Instant::now();
    while dropped() < u64::from(GARBAGE) && begin.elapsed() < DEADLINE {
        dataplane.observe()?;
    }
    assert_eq!(dropped(), u64::from(GARBAGE));
    Ok(())
}
