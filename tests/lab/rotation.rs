//! **lossless-rotation**: keys are replaced again and again while containers send each other all they can.
//!
//! ```text
//!  container 1 ── numbers 1, 2, 3, … ──► container 2    datagrams, a few under way at a time, both ways
//!       └─────── octets that repeat nowhere ──►┘        TCP, both ways
//! ```
//!
//! Few are under way so that nothing is lost for want of room: what is missing then is the rotation's.

use core::{net::IpAddr, time::Duration};
use std::{
    env,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use overlay_testkit::{lab, until::until};
use rstest::rstest;
use socket2::SockRef;

use crate::{
    plane::{KERNEL_PAIR, MIXED, MIXED_PAIR, Plane, USERS},
    setup::{Cluster, Container, Lab, PATIENCE},
};

/// How many rotations, for those who have more time.
const ROTATIONS: &str = "OVERLAY_TEST_ROTATIONS";
/// Datagrams under way, and their octets.
const WINDOW: u64 = 32;
const DATAGRAM: usize = 1200;
/// Octets of TCP under way.
const TCP_WINDOW: usize = 64 << 10;
/// Until the sender looks whether there is room again.
const FULL: Duration = Duration::from_micros(200);
/// Until the receiver looks whether that was all.
const STEP: Duration = Duration::from_millis(100);

/// Replaces the keys once, and waits until all nodes send with the new ones.
pub(crate) fn rotate(lab: &Lab, nodes: usize) -> Result<u64> {
    // The one before may be under way, or too many drain.
    let started =
        until("a rotation starts", PATIENCE, || lab.json(1, "key rotate")).context("key rotate")?;
    let wanted = started["epoch"].as_u64().context("an epoch")?;
    until("the new keys are in use", PATIENCE, || {
        let status = lab.json(1, "key status")?;
        let epochs = status["epochs"].as_array().context("epochs")?;
        let new = epochs.iter().find(|epoch| epoch["epoch"] == wanted);
        let new = new.context("the epoch is gone")?;
        ensure!(new["state"] == "active", "{new}");
        ensure!(new["ready"].as_array().is_some_and(|ready| ready.len() == nodes), "{new}");
        Ok(())
    })?;
    Ok(wanted)
}

/// What arrived of numbered datagrams one way.
#[derive(Default)]
struct Numbers {
    sent: AtomicU64,
    /// Different numbers that arrived.
    arrived: AtomicU64,
    doubled: AtomicU64,
    /// The sender has sent its last one.
    ended: AtomicBool,
}

impl Numbers {
    /// Sends as many as arrive, until then.
    fn send(&self, socket: &UdpSocket, target: SocketAddr, until: Until<'_>) -> Result<()> {
        let mut datagram = [0x5a; DATAGRAM];
        while until.goes_on() {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent - self.arrived.load(Ordering::Relaxed) >= WINDOW {
                thread::park_timeout(FULL);
                continue;
            }
            datagram[..8].copy_from_slice(&sent.to_be_bytes());
            socket.send_to(&datagram, target).with_context(|| format!("send number {sent}"))?;
            self.sent.store(sent + 1, Ordering::Relaxed);
        }
        self.ended.store(true, Ordering::Release);
        Ok(())
    }

    /// Receives until all have arrived, or nothing comes any more.
    fn receive(&self, socket: &UdpSocket) -> Result<()> {
        socket.set_read_timeout(Some(STEP))?;
        let mut seen = Vec::new();
        let mut silent = Duration::ZERO;
        let mut datagram = [0; DATAGRAM + 1];
        loop {
            // Before what was sent is read, which does not change any more then.
            let ended = self.ended.load(Ordering::Acquire);
            let all = self.arrived.load(Ordering::Relaxed) == self.sent.load(Ordering::Relaxed);
            // One that comes twice comes the second time at once.
            if ended && (silent >= PATIENCE || all && silent >= STEP) {
                return Ok(());
            }
            let Ok(length) = socket.recv(&mut datagram) else {
                silent += STEP;
                continue;
            };
            silent = Duration::ZERO;
            ensure!(length == DATAGRAM && datagram[8..length] == [0x5a; DATAGRAM - 8], "damaged");
            let number = u64::from_be_bytes(*datagram.first_chunk().context("a number")?) as usize;
            if seen.len() <= number {
                seen.resize(number + 1, false);
            }
            let counter = if seen[number] { &self.doubled } else { &self.arrived };
            seen[number] = true;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn all_arrived_once(&self, what: &str) -> Result<String> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sent, arrived, doubled) = (read(&self.sent), read(&self.arrived), read(&self.doubled));
        ensure!(sent > 0, "{what}: nothing was sent");
        ensure!(arrived == sent, "{what}: {} of {sent} are lost", sent - arrived);
        ensure!(doubled == 0, "{what}: {doubled} of {sent} came twice");
        Ok(format!("{what}: {sent} datagrams"))
    }
}

/// How long to send, and how fast.
#[derive(Clone, Copy)]
struct Until<'a> {
    stop: &'a AtomicBool,
    pause: Duration,
}

impl Until<'_> {
    /// Whether to send again, behind the pause.
    fn goes_on(self) -> bool {
        if !self.pause.is_zero() {
            thread::park_timeout(self.pause);
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Sends a stream until then, and ends it.
fn pour(mut stream: TcpStream, until: Until<'_>) -> Result<u64> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut number = 0_u64;
    while until.goes_on() {
        let block: Vec<u8> = (number..number + 1024).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block).context("a stream broke")?;
        number += 1024;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(number * 8)
}

/// Receives what `pour` sends. Returns its octets.
fn take(listener: &TcpListener) -> Result<u64> {
    SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
    let (mut stream, _) = listener.accept().context("nobody connects")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut buffer, mut number) = (vec![0; 8192], 0_u64);
    loop {
        match stream.read(&mut buffer[..1])? {
            0 => return Ok(number * 8),
            _ => stream.read_exact(&mut buffer[1..]).context("a stream is torn")?,
        }
        for octets in buffer.chunks_exact(8) {
            ensure!(octets == number.to_be_bytes(), "other octets arrive after {number} words");
            number += 1;
        }
    }
}

/// Sockets of one direction.
struct Way {
    sender: UdpSocket,
    receiver: UdpSocket,
    stream: TcpStream,
    listener: TcpListener,
}

impl Way {
    fn open(from: &Container, to: &Container) -> Result<Self> {
        let address = to.address();
        let any: IpAddr = [0; 4].into();
        let sender = from.netns.enter(|| UdpSocket::bind((any, 0)))?;
        let receiver = to.netns.enter(|| UdpSocket::bind((address, 0)))?;
        let listener = to.netns.enter(|| TcpListener::bind((address, 0)))?;
        SockRef::from(&listener).set_recv_buffer_size(TCP_WINDOW)?;
        let target = listener.local_addr()?;
        let stream = from.netns.enter(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        Ok(Self { sender, receiver, stream, listener })
    }
}

/// Runs `turns` while both containers send each other, with a pause before each datagram and each block of a
/// stream, and says how much that was.
pub(crate) fn under_load(
    (one, two): (&Container, &Container),
    pause: Duration,
    turns: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let ways = [Way::open(one, two)?, Way::open(two, one)?];
    let numbers = <[Numbers; 2]>::default();
    let stop = AtomicBool::new(false);
    let (turned, streams) = thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut streams = Vec::new();
        for (way, numbers) in ways.iter().zip(&numbers) {
            let target = way.receiver.local_addr()?;
            threads.push(scope.spawn(|| numbers.receive(&way.receiver)));
            let until = Until { stop: &stop, pause };
            threads.push(scope.spawn(move || numbers.send(&way.sender, target, until)));
            streams.push(scope.spawn(|| take(&way.listener)));
            let stream = way.stream.try_clone()?;
            streams.push(scope.spawn(move || pour(stream, until)));
        }
        let turned = turns();
        stop.store(true, Ordering::Relaxed);
        let ended = |thread: thread::ScopedJoinHandle<'_, Result<()>>| thread.join().expect("join");
        threads.into_iter().try_for_each(ended)?;
        let octets: Vec<u64> =
            streams.into_iter().map(|t| t.join().expect("join")).collect::<Result<_>>()?;
        anyhow::Ok((turned, octets))
    })?;
    turned?;
    for pair in streams.chunks(2) {
        ensure!(pair[0] == pair[1] && pair[0] > 0, "TCP: {} of {} octets", pair[0], pair[1]);
    }
    let told = [("there", &numbers[0]), ("back", &numbers[1])].map(|(w, n)| n.all_arrived_once(w));
    let [there, back] = told;
    Ok(format!("{}, {}, TCP {streams:?} octets", there?, back?))
}

fn rotations(default: u32) -> Result<u32> {
    let Some(text) = env::var_os(ROTATIONS) else { return Ok(default) };
    let text = text.to_string_lossy();
    text.parse().with_context(|| format!("{ROTATIONS}={text} is no number"))
}

/// `count` rotations under load between containers of the first and the last node.
fn lossless(planes: &[Plane], count: u32) -> Result<()> {
    let count = rotations(count)?;
    // Keys drain for two seconds instead of a minute: rotations would wait for room.
    Cluster { flags: "--rotation-drain 2", ..Cluster::of(planes) }.run(|lab| {
        lab.ctl(1, "network create --attachable --opt encrypted net")?;
        let (one, two) = (lab.container(1, "net")?, lab.container(planes.len() as u8, "net")?);
        crate::probe::ping(&one.netns, two.address())?;
        crate::probe::ping(&two.netns, one.address())?;
        let mut last = 0;
        let told = under_load((&one, &two), Duration::ZERO, || {
            for number in 1..=count {
                let epoch = rotate(lab, planes.len()).with_context(|| format!("turn {number}"))?;
                if epoch <= last {
                    bail!("epoch {epoch} follows epoch {last}");
                }
                last = epoch;
            }
            Ok(())
        })?;
        #[expect(clippy::print_stderr, reason = "how much a long run has proved")]
        {
            eprintln!("{count} rotations: {told}");
        }
        Ok(())
    })
}

#[rstest]
#[case::user(USERS)]
#[case::mixed(MIXED)]
fn lossless_rotation_e03_every_number_arrives_once(#[case] planes: [Plane; 3]) -> Result<()> {
    lossless(&planes, 20)
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn lossless_rotation_e03_every_number_arrives_once_with_esp(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    lossless(&planes, 3)
}
