//! What is measured between two ends.

use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use crate::layouts::Pair;

/// Time that a stream of bytes has to get going, and that it is measured for.
const WARM_UP: Duration = Duration::from_millis(150);
const STREAM: Duration = Duration::from_millis(700);
/// Time of each of the others.
const SHORT: Duration = Duration::from_millis(400);
/// What an application writes and reads at once.
const BLOCK: usize = 128 << 10;

/// Counts what happens, until it is told to stop.
#[derive(Default)]
struct Meter {
    count: AtomicU64,
    stop: AtomicBool,
}

impl Meter {
    fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Lets it run, and tells how much was counted in each second of `time`, and the busy seconds of the
    /// machine in all of it.
    #[expect(clippy::cast_precision_loss, reason = "a count of 2^52 is not reached")]
    fn measure(&self, time: Duration) -> Result<(f64, f64)> {
        thread::sleep(WARM_UP);
        let (begin, count, before) = (Instant::now(), self.count.load(Ordering::Relaxed), busy()?);
        thread::sleep(time);
        let counted = self.count.load(Ordering::Relaxed) - count;
        let (elapsed, after) = (begin.elapsed(), busy()?);
        self.stop.store(true, Ordering::Relaxed);
        Ok((counted as f64 / elapsed.as_secs_f64(), after - before))
    }
}

/// CPU seconds that the machine has been busy.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("empty /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq; 100 ticks in a second.
    Ok([0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / 100.0)
}

fn listen(pair: &Pair) -> Result<(TcpListener, SocketAddr)> {
    let own = listens(pair);
    let listener = pair.server.enter(|| TcpListener::bind(own))?;
    let address = asked(pair, listener.local_addr()?);
    Ok((listener, address))
}

/// Where the server listens: it need not have the address that clients ask for.
fn listens(pair: &Pair) -> SocketAddr {
    let any = if pair.address.is_ipv4() { IpAddr::from([0; 4]) } else { [0_u16; 8].into() };
    SocketAddr::new(any, pair.ports.map_or(0, |(_, own)| own))
}

/// What clients ask for when the server listens there.
fn asked(pair: &Pair, own: SocketAddr) -> SocketAddr {
    SocketAddr::new(pair.address, pair.ports.map_or(own.port(), |(asked, _)| asked))
}

fn connect(pair: &Pair, address: SocketAddr) -> Result<TcpStream> {
    pair.client.enter(|| TcpStream::connect(address)).context("connect")
}

/// Gbit/s of that many connections, and CPU seconds for a gigabyte.
pub(crate) fn stream(pair: &Pair, flows: usize) -> Result<(f64, f64)> {
    let (listener, address) = listen(pair)?;
    let meter = Meter::default();
    let meter = &meter;
    thread::scope(|scope| {
        for _ in 0..flows {
            let mut sender = connect(pair, address)?;
            let (mut receiver, _) = listener.accept()?;
            scope.spawn(move || {
                let block = vec![0x5a; BLOCK];
                while meter.goes_on() && sender.write_all(&block).is_ok() {}
            });
            scope.spawn(move || {
                let mut block = vec![0; BLOCK];
                while let Ok(length @ 1..) = receiver.read(&mut block) {
                    meter.add(length as u64);
                }
            });
        }
        let (octets, busy) = meter.measure(STREAM)?;
        Ok((octets * 8.0 / 1e9, busy / (octets * STREAM.as_secs_f64() / 1e9)))
    })
}

/// Datagrams of that size that arrive in a second, of as many as one thread can send.
pub(crate) fn datagrams(pair: &Pair, size: usize) -> Result<f64> {
    let own = listens(pair);
    let receiver = pair.server.enter(|| UdpSocket::bind(own))?;
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    let address = asked(pair, receiver.local_addr()?);
    let sender = pair.client.enter(|| -> Result<_> {
        let socket = UdpSocket::bind(SocketAddr::new(own.ip(), 0))?;
        socket.connect(address)?;
        Ok(socket)
    })?;
    let meter = Meter::default();
    let meter = &meter;
    thread::scope(|scope| {
        scope.spawn(move || {
            let content = vec![0x5a; size];
            // Where there is no room for one, the next is tried.
            while meter.goes_on() {
                let _ = sender.send(&content);
            }
        });
        scope.spawn(move || {
            let mut content = vec![0; size];
            while meter.goes_on() {
                if receiver.recv(&mut content).is_ok() {
                    meter.add(1);
                }
            }
        });
        let (arrived, _) = meter.measure(SHORT)?;
        ensure!(arrived > 0.0, "{}: no datagram of {size} octets arrives", pair.name);
        Ok(arrived)
    })
}

/// Time between a request and its response of one octet each, in µs: half of them, and 99 of 100,
/// take no longer. One thread is both ends: what is measured is the way, and not when the scheduler of a
/// machine with few cores lets the other end run.
pub(crate) fn exchanges(pair: &Pair) -> Result<(f64, f64)> {
    let (listener, address) = listen(pair)?;
    let client = connect(pair, address)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < SHORT {
        let asked = Instant::now();
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            from.write_all(&[1])?;
            to.read_exact(&mut [0])?;
        }
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Connections that are opened, taken and closed in a second, by one thread too.
pub(crate) fn connections(pair: &Pair) -> Result<f64> {
    let (listener, address) = listen(pair)?;
    pair.client.enter(|| -> Result<f64> {
        let (begin, mut count) = (Instant::now(), 0_u32);
        while begin.elapsed() < SHORT {
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            for end in [client, server] {
                // Nothing is left to wait for: ports come free at once.
                SockRef::from(&end).set_linger(Some(Duration::ZERO))?;
            }
            count += 1;
        }
        Ok(f64::from(count) / begin.elapsed().as_secs_f64())
    })
}
