//! What somebody on the way sends to a node in user space: each datagram is counted by its reason, and
//! none has an effect on the association that it pretends to belong to.
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use std::{env, fs, net::UdpSocket, time::Instant};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::user::engine::DropReason;

use crate::{
    capture::{frame, next_frame, on_loopback},
    esp_peer::{Lab, encapsulate, lab},
    probe::DEADLINE,
};

/// Packet numbers that are told from one that was seen (RFC 6479).
const WINDOW: u64 = 4096;
/// How many datagrams of garbage, for those who have more time.
const GARBAGE: &str = "OVERLAY_TEST_GARBAGE";
/// Datagrams that are under way: what a socket takes without dropping any.
const BURST: u64 = 64;
/// What a test process may grow by while others run in it.
const NOISE: u64 = 32 << 20;

/// A node, and what was sent to it.
struct Target {
    lab: Lab,
    sent: Vec<(DropReason, u64)>,
    /// Next number of an honest packet.
    next: u64,
}

impl Target {
    fn new(host: u8) -> Result<Self> {
        Ok(Self { lab: lab(host)?, sent: Vec::new(), next: 1 })
    }

    /// A packet as the peer seals it.
    fn sealed(&self, number: u64) -> Result<Vec<u8>> {
        let content = encapsulate(&frame(2, 1, &number.to_be_bytes()));
        self.lab.to_switch.seal(number, number.to_be_bytes(), &content, 0)
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        self.lab.socket.send_to(packet, self.lab.switch).context("send")?;
        Ok(())
    }

    /// Sends what must be dropped for a reason.
    fn hostile(&mut self, reason: DropReason, packet: &[u8]) -> Result<()> {
        self.send(packet)?;
        self.expect(reason)
    }

    /// Waits until one more was dropped for a reason.
    fn expect(&mut self, reason: DropReason) -> Result<()> {
        match self.sent.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.sent.push((reason, 1)),
        }
        let begin = Instant::now();
        loop {
            let mut seen: Vec<_> =
                self.lab.dataplane.switch().counters().drops().filter(|(_, n)| *n > 0).collect();
            let mut sent = self.sent.clone();
            seen.sort_unstable();
            sent.sort_unstable();
            if seen == sent {
                return Ok(());
            }
            ensure!(begin.elapsed() < DEADLINE, "counted {seen:?} instead of {sent:?}");
        }
    }

    /// An honest packet arrives.
    fn honest(&mut self) -> Result<()> {
        self.arrives(self.next)?;
        self.next += 1;
        Ok(())
    }

    fn arrives(&mut self, number: u64) -> Result<()> {
        self.send(&self.sealed(number)?)?;
        let arrived = next_frame(&mut self.lab.port)?;
        ensure!(arrived == frame(2, 1, &number.to_be_bytes()), "another frame than {number}");
        Ok(())
    }
}

#[test]
fn e01_r06_forged_and_truncated_packets_have_no_effect() -> Result<()> {
    on_loopback(|| {
        let mut target = Target::new(11)?;
        target.honest()?;
        let good = target.sealed(2)?;
        target.next = 3;
        // Cut at each length: too short for a header, no multiple of four, or with a wrong tag.
        for length in 0..good.len() {
            target.hostile(DropReason::EspInvalid, &good[..length])?;
        }
        // Each bit of the packet: of the SPI another association, of the rest a wrong tag. Number 0 is
        // before the window.
        for place in 0..good.len() * 8 {
            let mut forged = good.clone();
            forged[place / 8] ^= 1 << (place % 8);
            let reason = match place {
                0..32 => DropReason::UnknownSpi,
                _ if forged[4..8] == [0; 4] => DropReason::EspReplay,
                _ => DropReason::EspInvalid,
            };
            target.hostile(reason, &forged)?;
        }
        target.honest()?;
        // After all that the very packet that was forged is let in.
        target.arrives(2)
    })
}

#[test]
fn e01_r06_replayed_reordered_and_misplaced_packets_have_no_effect() -> Result<()> {
    on_loopback(|| {
        let mut target = Target::new(13)?;
        // The other way round within the window: all arrive, each once.
        for number in (1..=100).rev() {
            target.arrives(number)?;
        }
        for number in 1..=100 {
            target.hostile(DropReason::EspReplay, &target.sealed(number)?)?;
        }
        // Numbers that the window has left behind: of 64 bits the upper half is guessed to be the next
        // one (RFC 4303 appendix A2), so that the tag is wrong.
        target.arrives(100 + WINDOW)?;
        for number in [101, 102] {
            let last = number + WINDOW;
            target.arrives(last)?;
            target.hostile(DropReason::EspInvalid, &target.sealed(number)?)?;
        }
        target.next = 10_000;
        target.honest()?;
        // An epoch that is erased, and one that never was.
        for spi in [0x0a0b_0c77_u32, 0x0102_0304] {
            let mut packet = target.sealed(20_000)?;
            packet[..4].copy_from_slice(&spi.to_be_bytes());
            target.hostile(DropReason::UnknownSpi, &packet)?;
        }
        // Our own packet, thrown back: its SPI is that of the other direction.
        let own = frame(1, 2, b"own");
        target.lab.port.send(own)?;
        let mut buffer = [0; 2000];
        let (length, _) = target.lab.socket.recv_from(&mut buffer)?;
        target.hostile(DropReason::UnknownSpi, &buffer[..length])?;
        // An authentic packet from another address than the peer's.
        let elsewhere = UdpSocket::bind("127.77.7.99:4500")?;
        elsewhere.send_to(&target.sealed(20_001)?, target.lab.switch)?;
        target.expect(DropReason::EspPeer)?;
        // Its number has been used.
        target.next = 20_002;
        target.honest()
    })
}

fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("VmRSS")?.trim().trim_end_matches(" kB");
    Ok(text.parse::<u64>()? << 10)
}

#[test]
fn r06_memory_stays_what_it_is_under_garbage() -> Result<()> {
    let count = match env::var(GARBAGE) {
        Ok(text) => text.parse().with_context(|| format!("{GARBAGE}={text} is no number"))?,
        Err(_) => 100_000_u64,
    };
    on_loopback(move || {
        let mut target = Target::new(15)?;
        target.honest()?;
        let spi = target.sealed(1)?[..4].to_vec();
        let dropped = |target: &Target| {
            target.lab.dataplane.switch().counters().drops().map(|(_, n)| n).sum::<u64>()
        };
        let mut state = 1_u64;
        let mut garbage = [0; 1400];
        let mut before = resident()?;
        for number in 1..=count {
            for octets in garbage.chunks_mut(8) {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                octets.copy_from_slice(&state.to_be_bytes()[..octets.len()]);
            }
            // Half of them find the association.
            if number.is_multiple_of(2) {
                garbage[..4].copy_from_slice(&spi);
            }
            target.send(&garbage[..(state >> 32) as usize % garbage.len()])?;
            if number.is_multiple_of(BURST) || number == count {
                let begin = Instant::now();
                while dropped(&target) < number {
                    ensure!(begin.elapsed() < DEADLINE, "{} of {number}", dropped(&target));
                    std::thread::yield_now();
                }
            }
            if number == count / 10 {
                before = resident()?;
            }
        }
        let after = resident()?;
        ensure!(after < before + NOISE, "{before} octets before, {after} after");
        target.next = 2;
        target.honest()
    })
}
