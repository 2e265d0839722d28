//! Committed writes per second of three managers on loopback, at 1, 16 and 256 clients, next to
//! three members of etcd on the same disk, and to raw fdatasync calls per second. A number as the
//! argument measures that many clients only.
//!
//! | | three managers | three members of etcd |
//! |---|---|---|
//! | a write | a network or service is created, or removed by its name | a key is put, or deleted |
//! | payload | a spec with a name and a label | a key of that name, a value of that size |
//! | besides | names are unique, a network gets a subnet and a VNI | nothing |
//! | allocator | mimalloc, as in `overlayd` | Go's |
//! | clients | share one HTTP/2 connection to the leader's unix socket | share one to the leader |
//! | a client's write | a call, or a message of the one call that all clients share | a call: it has no other |
//! | on the way | socket, then the services of this process | nothing: plain gRPC |
//! | processes | this one | three |
//!
//! All are measured by turns, so that other load on the machine meets all. Their work is the time that
//! processors spent on a write, of clients and managers or members together. Calls that write nothing
//! say what gRPC and its clients leave room for on this machine.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod etcd;
mod managers;

use std::{
    fs::File,
    io::Write,
    ops::AddAssign,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tonic::Status;

use self::{etcd::Etcd, managers::Managers};

/// That of `overlayd`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each side, and the time of one.
const TURNS: u32 = 3;
const TURN: Duration = Duration::from_secs(2);

/// Numbers of clients, and what is wanted next to etcd.
const CLIENTS: [(usize, &str); 3] = [(1, ">= 1"), (16, ""), (256, ">= 3")];

/// The label that each network carries, and the value of each key of etcd.
const PAYLOAD: &str = "sixty-four bytes of payload, which is about what a spec has: 0123";

/// What turns showed.
#[derive(Clone, Copy, Default)]
struct Speed {
    writes: f64,
    seconds: f64,
    /// Seconds of processors, of the clients and of those that they write to. Other load on the machine
    /// changes it little.
    work: f64,
}

impl Speed {
    fn per_second(self) -> f64 {
        self.writes / self.seconds
    }

    /// In microseconds.
    fn work_per_write(self) -> f64 {
        self.work * 1e6 / self.writes
    }
}

impl AddAssign for Speed {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.seconds += other.seconds;
        self.work += other.work;
    }
}

/// Seconds of processors that a process has had: fields 14 and 15 of `/proc/PID/stat`, in hundredths.
fn work(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("the name of a process has no end")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Ok(f64::from(ticks.sum::<Result<u32, _>>()?) / 100.0)
}

/// Runs pairs of writes, as often as the time of a turn allows. `others` do some of the work.
async fn speed<W>(
    (clients, others): (usize, &[u32]),
    pair: impl Fn(String) -> W + Clone + Send + 'static,
) -> Result<Speed>
where
    W: Future<Output = Result<(), Status>> + Send,
{
    let processes = || others.iter().copied().chain([std::process::id()]);
    let total = || processes().map(work).sum::<Result<f64>>();
    let (begun, worked) = (Instant::now(), total()?);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let pair = pair.clone();
        tasks.spawn(async move {
            let mut done = 0_u32;
            while begun.elapsed() < TURN {
                pair(format!("n{client}-{done}-{}", rand::random::<u32>())).await?;
                done += 2;
            }
            Ok::<u32, Status>(done)
        });
    }
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    let (writes, seconds) = (f64::from(done), begun.elapsed().as_secs_f64());
    Ok(Speed { writes, seconds, work: total()? - worked })
}

/// Overwrites one block and syncs it, as often as a second allows.
fn syncs(folder: &Path) -> Result<f64> {
    use std::os::unix::fs::FileExt;
    let mut file = File::create(folder.join("sync"))?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    let begun = Instant::now();
    let mut done = 0_u32;
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&done.to_ne_bytes().repeat(1024), 0)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<()> {
    // Benches run in the package's folder: the disk of the project, not a file system in memory.
    let folder = tempfile::tempdir_in("target").context("a folder in target/")?;
    println!("raw fdatasync\t{:.0}\t1/s\t", syncs(folder.path())?);
    let etcd = Etcd::start(folder.path()).await?;
    let managers = Managers::start(folder.path()).await?;
    let only: Option<usize> = std::env::args().find_map(|argument| argument.parse().ok());
    for (clients, wanted) in CLIENTS.into_iter().filter(|(c, _)| only.is_none_or(|o| *c == o)) {
        let [mut called, mut networks, mut services, mut theirs] = [Speed::default(); 4];
        for _ in 0..TURNS {
            called += managers.calls_for_networks(clients).await?;
            networks += managers.networks(clients).await?;
            services += managers.services(clients).await?;
            theirs += etcd.writes(clients).await?;
        }
        tell(&format!("etcd: keys, {clients} clients"), theirs);
        let ours = [
            ("networks, a call for each write", called, ""),
            ("networks, over one stream", networks, wanted),
            ("services, over one stream", services, wanted),
        ];
        for (what, speed, wanted) in ours {
            tell(&format!("managers: {what}, {clients} clients"), speed);
            let ratio = speed.per_second() / theirs.per_second();
            println!("the same / etcd\t{ratio:.2}\tx\t{wanted}");
        }
        let calls = managers.calls(clients).await?;
        tell(&format!("managers: calls that write nothing, {clients} clients"), calls);
    }
    Ok(())
}

fn tell(what: &str, speed: Speed) {
    println!("{what}\t{:.0}\t1/s\t", speed.per_second());
    println!("its work\t{:.1}\tus/write\t", speed.work_per_write());
}
