//! The name servers, each a process on a core of its own.

use core::net::{Ipv4Addr, SocketAddr};
use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use overlay_service::{Directory, Scope, SharedDirectory, dns};
use overlay_testkit::lab::{Namespace, Running};

use crate::{echo, view};

/// Names that are asked for.
pub(crate) const NAMES: u32 = 1000;
/// The core of servers.
const CORE: &str = "0";
/// Has a process of this program serve, at the address that it holds.
const SERVE: &str = "OVERLAY_DNS_SERVE";
/// Has it send back what it is asked.
const ECHO: &str = "OVERLAY_DNS_ECHO";
/// Seconds that clients may keep an answer.
const TTL: u32 = 5;

/// A name server that runs.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Running,
}

impl Server {
    fn start(host: &Namespace, name: &'static str, port: u16, command: &[&str]) -> Result<Self> {
        let pinned = [&["taskset", "-c", CORE], command].concat();
        let process = host.spawn(&pinned).with_context(|| format!("start {name}"))?;
        Ok(Self { name, address: (Ipv4Addr::LOCALHOST, port).into(), process })
    }

    /// Seconds that it has been on its core: each is one thread.
    pub(crate) fn busy(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id()))?;
        let nanos = stat.split(' ').next().context("an empty schedstat")?;
        Ok(nanos.parse::<f64>()? / 1e9)
    }

    pub(crate) fn ours(host: &Namespace) -> Result<Self> {
        Self::own(host, "ours", 5301, SERVE)
    }

    /// One that sends questions back.
    pub(crate) fn echo(host: &Namespace) -> Result<Self> {
        Self::own(host, "questions sent back", 5304, ECHO)
    }

    fn own(host: &Namespace, name: &'static str, port: u16, kind: &str) -> Result<Self> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("a path in UTF-8")?;
        Self::start(host, name, port, &["env", &format!("{kind}=127.0.0.1:{port}"), program])
    }

    pub(crate) fn dnsmasq(host: &Namespace, folder: &Path) -> Result<Self> {
        let hosts = (0..NAMES).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{} {}", view::virtual_address(number), name(number));
            text
        });
        let path = folder.join("hosts");
        fs::write(&path, hosts)?;
        let hosts = format!("--addn-hosts={}", path.display());
        let ttl = format!("--local-ttl={TTL}");
        let command = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--port=5302",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            &ttl,
            &hosts,
        ];
        Self::start(host, "dnsmasq", 5302, &command)
    }

    pub(crate) fn unbound(host: &Namespace, folder: &Path) -> Result<Self> {
        let mut config = String::from(
            "server:\n num-threads: 1\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n \
             pidfile: \"\"\n use-syslog: no\n interface: 127.0.0.1\n port: 5303\n \
             local-zone: \"service.\" static\nremote-control:\n control-enable: no\nserver:\n",
        );
        for number in 0..NAMES {
            let (name, address) = (name(number), view::virtual_address(number));
            writeln!(config, " local-data: \"{name}. {TTL} A {address}\"")?;
        }
        let path = folder.join("unbound.conf");
        fs::write(&path, config)?;
        let path = path.to_str().context("a path in UTF-8")?;
        Self::start(host, "unbound", 5303, &["unbound", "-d", "-c", path])
    }
}

/// The name of a service.
pub(crate) fn name(number: u32) -> String {
    format!("service-{number}")
}

/// Serves, if this process has been started to.
pub(crate) fn served() -> Option<Result<()>> {
    let asked = |kind: &str, serve: fn(SocketAddr) -> Result<()>| {
        let address = std::env::var(kind).ok()?;
        let parsed = address.parse().with_context(|| format!("{kind}={address}"));
        Some(parsed.and_then(serve))
    };
    asked(SERVE, serve).or_else(|| asked(ECHO, echo::serve))
}

/// Serves until it is ended.
fn serve(address: SocketAddr) -> Result<()> {
    let directory = SharedDirectory::new(Directory::new(&view::of(NAMES)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = dns::Server::new(directory, Scope::new([view::NETWORK]), None);
        server.serve_udp(tokio::net::UdpSocket::bind(address).await?);
        core::future::pending().await
    })
}
