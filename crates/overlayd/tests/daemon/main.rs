//! The binary under its service manager, and under fire.

mod callers;
mod calls;
mod cases;
mod descriptors;
mod full_disk;
mod gateway;
mod holder;
mod hosts;
mod kernel;
mod kill;
mod silent;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_testkit::lab::Namespace;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon, and the socket that it notifies. Killed when dropped.
struct Daemon {
    child: Child,
    manager: UnixDatagram,
    folder: tempfile::TempDir,
    address: Ipv4Addr,
    way: Way,
}

/// How a daemon is started.
#[derive(Clone)]
struct Way {
    /// The command that starts it, if it does not start by itself.
    through: Vec<String>,
    /// What else it is told.
    flags: Vec<String>,
    /// The network namespace that it runs in; `None` is the test's own.
    host: Option<Arc<Namespace>>,
}

impl Way {
    /// Many daemons share the test's own network namespace, which is no kernel dataplane's.
    fn through(through: Vec<String>) -> Self {
        Self { through, flags: vec!["--dataplane".into(), "user".into()], host: None }
    }
}

fn spawn(folder: &Path, address: Ipv4Addr, way: &Way) -> Child {
    let path = |name: &str| folder.join(name);
    let stderr = fs::OpenOptions::new().create(true).append(true).open(path("stderr")).unwrap();
    let line = [&way.through[..], &[env!("CARGO_BIN_EXE_overlayd").to_owned()]].concat();
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .args(["--config", path("overlayd.toml").to_str().unwrap()])
        .args(["--data-dir", path("data").to_str().unwrap()])
        .args(["--socket", path("socket").to_str().unwrap()])
        .args(["--advertise-addr", &address.to_string()])
        .args(&way.flags)
        .env("NOTIFY_SOCKET", path("notify"))
        .stderr(Stdio::from(stderr));
    let spawned = match &way.host {
        Some(host) => host.enter(move || command.spawn()),
        None => command.spawn(),
    };
    spawned.unwrap()
}

impl Daemon {
    fn start(address: Ipv4Addr, log: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), address, log, Way::through(Vec::new()))
    }

    fn start_in(folder: tempfile::TempDir, address: Ipv4Addr, log: &str, way: Way) -> Self {
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        write_log(&folder.path().join("overlayd.toml"), log);
        let child = spawn(folder.path(), address, &way);
        Self { child, manager, folder, address, way }
    }

    /// Starts it again, on the same folder.
    fn restart(&mut self) {
        self.child = spawn(self.folder.path(), self.address, &self.way);
    }

    /// The socket for local callers.
    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn notified(&self) -> String {
        let mut message = [0; 256];
        let length = self.manager.recv(&mut message).expect("the daemon notifies");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "the wait for another process has an end")]
    fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not logged:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit();
    }

    /// Waits until somebody takes calls on its socket.
    #[expect(clippy::disallowed_methods, reason = "the wait for another process has an end")]
    fn until_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        // A socket that a killed daemon left behind refuses.
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "nobody answers:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    fn exit(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ =
            overlay_dataplane::kernel::xfrm::holder::end(&self.folder.path().join("socket.esp"));
    }
}

fn write_log(path: &Path, log: &str) {
    fs::write(path, format!("log = \"{log}\"\n")).unwrap();
}

#[test]
fn o01_the_service_manager_hears_of_start_and_stop() {
    let mut daemon = Daemon::start([127, 51, 1, 1].into(), "info");
    assert_eq!(daemon.notified(), "READY=1");
    // Whoever is told that it is ready can talk to it.
    let socket = daemon.folder.path().join("socket");
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.notified(), "STOPPING=1");
    assert!(daemon.exit().success());
    assert!(!socket.exists());
}

#[test]
fn o01_a_service_manager_that_does_not_read_holds_nothing_up() {
    let mut daemon = Daemon::start([127, 51, 3, 1].into(), "info");
    assert_eq!(daemon.notified(), "READY=1");
    daemon.kill();
    // The queue of a datagram socket is short: 10 where nobody changed it.
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(daemon.folder.path().join("notify")).unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send(b"full").is_ok() {}
    daemon.restart();
    daemon.until_answers();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.exit().success());
}

#[test]
fn o01_a_hangup_reloads_what_is_logged() {
    let daemon = Daemon::start([127, 51, 2, 1].into(), "warn");
    assert_eq!(daemon.notified(), "READY=1");
    let file = daemon.folder.path().join("overlayd.toml");
    write_log(&file, "info");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("reloaded");
    // A file that is wrong is named, and changes nothing.
    write_log(&file, "info,=,");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("not reloaded: log");
    fs::write(&file, "log = \"info\"\ngossip_port = 7000\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("restart the daemon");
}
