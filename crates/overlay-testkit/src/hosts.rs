//! Hosts on one wire, each a network namespace with a daemon in it: real programs, no root.
//!
//! ```text
//!  container c1           container c2          a container is a namespace
//!       │ eth0                 │ eth0
//!  ┌─ node1 ──────┐       ┌─ node2 ──────┐      each daemon has a folder of its own: data, socket,
//!  │ overlayd     │       │ overlayd     │      log, and the namespaces of its networks
//!  └─ cable ──────┘       └─ cable ──────┘      192.0.2.N, fd99::N
//!       └───────── wire ───────┘                a bridge in a namespace of its own
//! ```
//!
//! Nothing here ends a process or takes anything away: tests do at their end, `cargo xtask lab` at
//! `down`.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{lab::Namespace, until::until};

/// The bridge that all hosts are plugged into.
pub const WIRE: &str = "wire";
/// The hosts' device on the wire.
pub const CABLE: &str = "cable";
/// Managers of a cluster that has so many nodes; a smaller one has one, because two are lost with either.
const MANAGERS: usize = 3;
/// Longest wait for a daemon to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The programs that run on hosts.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The daemon.
    pub overlayd: PathBuf,
    /// The command line.
    pub overlayctl: PathBuf,
}

impl Programs {
    /// Those in a folder that cargo builds to.
    pub fn in_folder(folder: &Path) -> Self {
        Self { overlayd: folder.join("overlayd"), overlayctl: folder.join("overlayctl") }
    }
}

/// Has frames pass between the hosts that are plugged into this namespace.
pub fn lay_wire(wire: &Namespace) -> Result<()> {
    wire.ip(&format!("link add {WIRE} type bridge mcast_snooping 0"))?;
    wire.ip(&format!("link set {WIRE} up"))?;
    Ok(())
}

/// Plugs a namespace into the wire, with the addresses of this number.
pub fn plug(netns: &Namespace, wire: &Namespace, number: u8) -> Result<()> {
    netns.connect(CABLE, wire, &format!("to{number}"))?;
    wire.ip(&format!("link set to{number} master {WIRE}"))?;
    netns.ip(&format!("address add {}/24 dev {CABLE}", address_v4(number)))?;
    netns.ip(&format!("address add {}/64 dev {CABLE} nodad", address_v6(number)))?;
    Ok(())
}

/// A host, and what its daemon is started with.
#[derive(Debug)]
pub struct Host {
    /// Number on the wire, from 1.
    pub number: u8,
    /// Where its processes are.
    pub netns: Namespace,
    /// Where the daemon advertises itself.
    pub address: IpAddr,
    /// Data, socket and log of the daemon, and the namespaces of its networks.
    pub folder: PathBuf,
    /// Further flags of the daemon.
    pub flags: Vec<String>,
    /// Program and arguments that start the daemon, like `setpriv`; none: it is started as it is.
    pub started_by: Vec<String>,
    programs: Programs,
}

impl Host {
    /// A host in `netns`, which is plugged into the wire. Its folder is made in `folder`.
    pub fn new(
        number: u8,
        netns: Namespace,
        wire: &Namespace,
        folder: &Path,
        programs: Programs,
    ) -> Result<Self> {
        plug(&netns, wire, number)?;
        Self::found(number, netns, folder, programs)
    }

    /// A host that is plugged in already.
    pub fn found(number: u8, netns: Namespace, folder: &Path, programs: Programs) -> Result<Self> {
        let address = address_v4(number).into();
        let folder = folder.join(format!("node{number}"));
        fs::create_dir_all(&folder).context("make the host's folder")?;
        Ok(Self {
            number,
            netns,
            address,
            folder,
            flags: Vec::new(),
            started_by: Vec::new(),
            programs,
        })
    }

    /// Name of the node.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Where the daemon answers.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts the daemon. It leads a process group of its own: who ends it is not the terminal.
    pub fn start(&self) -> Result<Child> {
        let path = |name: &str| self.folder.join(name);
        let log = OpenOptions::new().create(true).append(true).open(path("log"))?;
        let daemon = self.programs.overlayd.as_os_str();
        let mut words = self.started_by.iter().map(OsStr::new).chain([daemon]);
        let mut daemon = Command::new(words.next().unwrap_or(daemon));
        daemon.args(words);
        daemon.arg("--data-dir").arg(path("data")).arg("--socket").arg(self.socket());
        daemon.args(["--name", &self.name()]);
        daemon.args(["--advertise-addr", &self.address.to_string()]).args(&self.flags);
        daemon.process_group(0);
        // Settings of the one who starts it are not the host's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OVERLAYD_") {
                daemon.env_remove(name);
            }
        }
        daemon.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let program = self.programs.overlayd.display();
        self.netns.enter(|| daemon.spawn()).with_context(|| format!("start {program}"))
    }

    /// Waits until the daemon takes calls, or says what it logged instead.
    pub fn until_answers(&self, daemon: &mut Child) -> Result<()> {
        let mut ended = None;
        until("a daemon answers", PATIENCE, || {
            // One that ended will not answer any more; its socket may be left of a former one.
            ended = daemon.try_wait()?;
            if ended.is_none() {
                UnixStream::connect(self.socket()).context("connect")?;
            }
            Ok(())
        })
        .and_then(|()| {
            ensure!(ended.is_none(), "the daemon of {} has ended", self.name());
            Ok(())
        })
        .with_context(|| self.log())
    }

    /// Runs `overlayctl` to its end and returns what it printed. Fails when it does, with its words.
    pub fn ctl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut ctl = Command::new(&self.programs.overlayctl);
        ctl.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        let Output { status, stdout, stderr } = ctl.output().context("start overlayctl")?;
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let stderr = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "overlayctl {}: {status}: {}", words.join(" "), stderr.trim());
        Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
    }

    /// Attaches a container's namespace: `eth0` in there, on `network`. Returns the endpoint's id.
    pub fn attach(
        &self,
        network: &str,
        name: &str,
        netns: &Path,
        flags: &[&str],
    ) -> Result<String> {
        let netns = netns.to_str().context("a path in UTF-8")?;
        let attach = ["endpoint", "attach", "--network", network, "--name", name];
        self.ctl(&[&attach[..], &["--interface", "eth0", "--netns", netns], flags].concat())
    }
}

/// Ends what goes on taking ESP in while the daemon with this folder is down, if there is something: a daemon
/// that was killed leaves it.
pub fn end_holder(folder: &Path) {
    if let Ok(mut holder) = UnixStream::connect(folder.join("socket.esp")) {
        // Until it has ended; it may have already, or attend to a daemon.
        let _ = holder.set_read_timeout(Some(PATIENCE));
        let _ = holder.write_all(b"end\n");
        let _ = io::copy(&mut holder, &mut io::sink());
    }
}

/// Makes a cluster of hosts whose daemons answer; `init`: further arguments of `overlayctl init`.
pub fn form(hosts: &[&Host], init: &[&str]) -> Result<()> {
    let (first, others) = hosts.split_first().context("a cluster has a node")?;
    first.ctl(&[&["init"], init].concat())?;
    let managers = if hosts.len() < MANAGERS { 1 } else { MANAGERS };
    for (place, host) in others.iter().enumerate() {
        let role = if place + 1 < managers { "manager" } else { "worker" };
        let token = first.ctl(&["join-token", "--quiet", role])?;
        host.ctl(&["join", "--token", &token, &first.address.to_string()])?;
    }
    Ok(())
}

/// The IPv4 address of a host on the wire.
pub const fn address_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// Its IPv6 address.
pub const fn address_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number as u16)
}
