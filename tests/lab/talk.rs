//! Two containers that talk all the time, so that a moment in which something leaks, or does not
//! arrive, is not missed.

use core::{net::IpAddr, time::Duration};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::until::until;

use crate::setup::{Container, PATIENCE};

/// Where the second one answers.
const PORT: u16 = 7777;
/// Between an answer, or a question without one, and the next question.
const PAUSE: Duration = Duration::from_millis(5);
/// Answers that show that the two understand each other.
const ENOUGH: u64 = 5;

/// The talk. Ends when it is dropped.
pub(crate) struct Talk {
    asked: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Talk {
    /// `word` is in every datagram, of both.
    pub(crate) fn between(one: &Container, two: &Container, word: &'static [u8]) -> Result<Self> {
        Self::by(two.address(), one, two, word)
    }

    /// The second one is asked at an address that leads to it.
    pub(crate) fn by(
        address: IpAddr,
        one: &Container,
        two: &Container,
        word: &'static [u8],
    ) -> Result<Self> {
        let target = SocketAddr::new(address, PORT);
        let any = |port| SocketAddr::new(IpAddr::from([0; 4]), port);
        // Not at their addresses: these may go and come back.
        let asker = one.netns.enter(|| UdpSocket::bind(any(0)))?;
        let answerer = two.netns.enter(|| UdpSocket::bind(any(PORT)))?;
        for socket in [&asker, &answerer] {
            socket.set_read_timeout(Some(PAUSE))?;
        }
        let (asked, answered) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || answer(&answerer, &stop)
            }),
            std::thread::spawn({
                let (stop, asked, answered) =
                    (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&answered));
                move || ask(&asker, target, word, [&asked, &answered], &stop)
            }),
        ];
        Ok(Self { asked, answered, stop, threads })
    }

    /// Waits until some that are asked from now on are answered.
    pub(crate) fn until_answered(&self) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        until("the containers understand each other", PATIENCE, || {
            let since = self.answered.load(Ordering::Relaxed) - before;
            ensure!(since >= ENOUGH, "{since} answers");
            Ok(())
        })
    }

    /// Waits until as much was asked again, answered or not.
    pub(crate) fn until_asked(&self) -> Result<()> {
        let before = self.asked.load(Ordering::Relaxed);
        until("the containers talk", PATIENCE, || {
            let since = self.asked.load(Ordering::Relaxed) - before;
            ensure!(since >= 4 * ENOUGH, "{since} questions");
            Ok(())
        })
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in core::mem::take(&mut self.threads) {
            thread.join().ok().context("who talks panicked")?;
        }
        Ok(())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(
    socket: &UdpSocket,
    target: SocketAddr,
    word: &[u8],
    [asked, answered]: [&AtomicU64; 2],
    stop: &AtomicBool,
) {
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        // There may be no device, or no way, at the moment.
        let _ = socket.send_to(word, target);
        asked.fetch_add(1, Ordering::Relaxed);
        // Until none came for a pause.
        while socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == word) {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}
