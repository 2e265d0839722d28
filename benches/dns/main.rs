//! Queries per second for names of the cluster, next to two name servers that others made, which serve
//! the same names from their local data.
//!
//! Each server has one core, and `dnsperf` the other. They are asked by turns, so that other load on the
//! machine meets all alike; what is told is the median over rounds of the ratio within a round. A server whose
//! core is not busy all the time could answer more than `dnsperf` asks: hence also the queries in a second
//! that the server was on its core. A server that only sends questions back shows how much a server can answer
//! here that takes no time for it.
//! `cargo xtask bench dns` installs the others. `OVERLAY_DNS_ROUNDS` is the number of rounds.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod echo;
mod servers;
#[path = "../resolve/view.rs"]
mod view;

use core::{net::SocketAddr, time::Duration};
use std::{fmt::Write as _, fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, RecordType},
};
use overlay_testkit::{
    lab::{self, Namespace},
    until::until,
};

use self::servers::{NAMES, Server};

const ROUNDS: usize = 5;
/// Seconds that each server is asked for in a round.
const SECONDS: &str = "2";
/// Longest wait until a server answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// The core of whoever asks; servers have core 0.
const ASKERS_CORE: &str = "1";

fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Programs that give up their rights read their files still.
    let host = Namespace::new()?;
    let servers = [
        Server::ours(&host)?,
        Server::dnsmasq(&host, folder.path())?,
        Server::unbound(&host, folder.path())?,
    ];
    let echo = Server::echo(&host)?;
    for server in &servers {
        host.enter(|| until(server.name, PATIENCE, || is_right(server.address)))?;
    }
    let questions = folder.path().join("questions");
    fs::write(&questions, questions_text())?;
    let rounds = std::env::var("OVERLAY_DNS_ROUNDS").ok().and_then(|text| text.parse().ok());
    let mut rates = vec![Vec::new(); servers.len() + 1];
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        for (server, rates) in servers.iter().chain([&echo]).zip(&mut rates) {
            let (begin, before) = (Instant::now(), server.busy()?);
            let rate = ask(&host, server.address, &questions)?;
            let share = (server.busy()? - before) / begin.elapsed().as_secs_f64();
            rates.push([rate, rate / share, share]);
        }
    }
    for (server, rates) in servers.iter().chain([&echo]).zip(&rates) {
        let of = |figure: usize| median(rates.iter().map(|round| round[figure]).collect());
        println!("dns: {}\t{:.0}\tqueries/s\t", server.name, of(0));
        println!("dns: {}, of a core\t{:.0}\tqueries/s\t", server.name, of(1));
        println!("dns: {}, its core is busy\t{:.0}\t%\t", server.name, of(2) * 100.0);
    }
    let [ours, others @ .., echoed] = &rates[..] else { bail!("no server was asked") };
    for (figure, name) in ["", ", of a core"].into_iter().enumerate() {
        let best = |round: usize| others.iter().map(|o| o[round][figure]).fold(0.0, f64::max);
        let to_best = |some: &[[f64; 3]]| {
            median(some.iter().enumerate().map(|(round, r)| r[figure] / best(round)).collect())
        };
        println!("dns: ours to the better of the others{name}\t{:.2}\t\t>= 1.5", to_best(ours));
        println!("dns: questions sent back to the same{name}\t{:.2}\t\t", to_best(echoed));
    }
    Ok(())
}

/// One question for each name.
fn questions_text() -> String {
    (0..NAMES).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{} A", servers::name(number));
        text
    })
}

/// Asks for a name, and looks whether the answer is its address.
fn is_right(server: SocketAddr) -> Result<()> {
    let number = NAMES - 1;
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(servers::name(number))?, RecordType::A));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(server)?;
    socket.send(&message.to_vec()?)?;
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer)?;
    let reply = Message::from_vec(&buffer[..len])?;
    let right = |data: &RData| matches!(data, RData::A(a) if a.0 == view::virtual_address(number));
    ensure!(reply.answers.iter().any(|record| right(&record.data)), "{server} answered {reply}");
    Ok(())
}

/// Queries per second.
fn ask(host: &Namespace, server: SocketAddr, questions: &Path) -> Result<f64> {
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let questions = questions.to_str().context("a path in UTF-8")?;
    let told = host.run(&[
        "taskset",
        "-c",
        ASKERS_CORE,
        "dnsperf",
        "-s",
        &address,
        "-p",
        &port,
        "-d",
        questions,
        "-l",
        SECONDS,
        "-c",
        "8",
    ])?;
    let value = |name: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).with_context(|| told.clone())
    };
    let lost: u64 = value("Queries lost:")?.parse()?;
    ensure!(lost == 0, "{server} lost queries:\n{told}");
    ensure!(told.contains("NOERROR") && told.contains("(100.00%)"), "{told}");
    Ok(value("Queries per second:")?.parse()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    if let Some(served) = servers::served() {
        return served;
    }
    if lab::skip() { Ok(()) } else { lab::isolated(run) }
}
