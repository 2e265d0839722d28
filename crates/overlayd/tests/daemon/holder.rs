//! The process that has the socket of ESP, too, with the daemon's own program, and without ESP: what the
//! kernel does not take for ESP stays in the socket.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, UdpSocket},
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_dataplane::{
    Error,
    kernel::xfrm::{
        Esp, Protection,
        holder::{self, Holder},
    },
};
use overlay_testkit::{
    lab::{self, Namespace},
    until::until,
};
use overlay_types::Encapsulation;

use crate::PATIENCE;

const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PORT: u16 = 4500;
/// What a key exchange begins with (RFC 3948 §2.2), and so no ESP.
const NO_ESP: [u8; 16] = [0; 16];

/// A host, and how a holder is started on it.
struct Site {
    netns: Namespace,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { netns: Namespace::new().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket.esp")
    }

    fn try_start(&self, own: IpAddr) -> Result<Protection, Error> {
        self.start_with(own, env!("CARGO_BIN_EXE_overlayd"), &["hold-esp"])
    }

    fn start_with(&self, own: IpAddr, program: &str, words: &[&str]) -> Result<Protection, Error> {
        let esp = Esp { vxlan_port: 4788, encapsulation: Encapsulation::Udp(PORT) };
        let arguments = words.iter().map(Into::into).collect();
        let holder = Holder { path: self.path(), program: program.into(), arguments };
        self.netns.enter(|| Protection::start(own, esp, Some(holder)))
    }

    /// What another test starts has this process's sockets, too, until it is another program.
    fn start(&self) -> Protection {
        until("nobody else has the port", PATIENCE, || Ok(self.try_start(OWN)?)).unwrap()
    }

    /// As a daemon does, in its namespace.
    fn keep(&self, protection: &mut Protection) {
        self.netns.enter(|| protection.keep());
    }

    /// The sockets at the port: their inodes, and octets that wait in them.
    fn sockets(&self) -> Vec<(String, usize)> {
        let table = || fs::read_to_string("/proc/thread-self/net/udp").unwrap();
        let table = self.netns.enter(table);
        let at_port = format!(":{PORT:04X}");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|row| row[1].ends_with(&at_port));
        let octets = |queues: &str| usize::from_str_radix(queues.split_once(':').unwrap().1, 16);
        rows.map(|row| (row[9].to_owned(), octets(row[4]).unwrap())).collect()
    }

    /// The only one. A listing may pass it over when another one is closed meanwhile.
    fn socket(&self) -> (String, usize) {
        until("there is one socket", PATIENCE, || {
            let found = self.sockets();
            anyhow::ensure!(found.len() == 1, "{found:?}");
            Ok(found[0].clone())
        })
        .unwrap()
    }

    fn inode(&self) -> String {
        self.socket().0
    }

    /// The holders on this host.
    fn holders(&self) -> Vec<Pid> {
        self.netns.processes("overlay-esp").unwrap()
    }

    /// The only one.
    fn holder(&self) -> anyhow::Result<Pid> {
        let found = self.holders();
        anyhow::ensure!(found.len() == 1, "{found:?}");
        Ok(found[0])
    }

    /// One that was told to end has let go of everything before its process is gone.
    fn until_none_holds(&self) {
        until("no holder runs", PATIENCE, || {
            let found = self.holders();
            anyhow::ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })
        .unwrap();
    }

    fn until_free(&self) {
        until("the port is free", PATIENCE, || {
            anyhow::ensure!(self.sockets().is_empty(), "{:?}", self.sockets());
            Ok(())
        })
        .unwrap();
    }

    /// Nobody else listens any more where a holder is to.
    fn until_kept(&self, protection: &mut Protection) -> Pid {
        until("a holder is started", PATIENCE, || {
            self.keep(protection);
            self.holder()
        })
        .unwrap()
    }

    fn until_held(&self) -> Pid {
        until("a holder runs", PATIENCE, || self.holder()).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A test that fails shall leave no process, either.
        let _ = holder::end(&self.path());
    }
}

#[test]
fn d05_e05_the_socket_of_esp_outlives_the_daemon_and_is_taken_over() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let mut protection = site.start();
    let first = site.inode();
    assert!(!site.path().exists(), "nobody holds it while there is no encrypted network");
    site.keep(&mut protection);
    for round in 1..=3 {
        // As when the daemon is killed: nothing is said.
        drop(protection);
        assert_eq!(site.inode(), first);
        let sender = site.netns.enter(|| UdpSocket::bind((OWN, 0))).unwrap();
        let before = site.socket().1;
        sender.send_to(&NO_ESP, (OWN, PORT)).unwrap();
        until("what comes meanwhile is taken in", PATIENCE, || {
            let queued = site.socket().1;
            anyhow::ensure!(queued > before, "{queued}");
            Ok(())
        })
        .unwrap();
        protection = site.start();
        assert_eq!(site.inode(), first, "round {round}: there is one socket, and it is the same");
        site.keep(&mut protection);
        site.until_held();
    }
    // The last encrypted network goes.
    protection.release();
    assert!(!site.path().exists());
    site.until_none_holds();
    assert_eq!(site.inode(), first, "the daemon has it still");
    site.keep(&mut protection);
    site.until_held();
    // So does one that does not know how it was before.
    drop(protection);
    let mut protection = site.start();
    protection.release();
    drop(protection);
    assert!(!site.path().exists());
    site.until_free();
    site.until_none_holds();
}

#[test]
fn d06_a_holder_that_is_killed_is_replaced() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let mut protection = site.start();
    site.keep(&mut protection);
    let (first, inode) = (site.until_held(), site.inode());
    kill(first, Signal::SIGKILL).unwrap();
    let second = until("another one runs", PATIENCE, || {
        let found = site.until_kept(&mut protection);
        anyhow::ensure!(found != first, "{found}");
        Ok(found)
    })
    .unwrap();
    assert_eq!(site.inode(), inode);
    // Both end: the next daemon begins anew.
    drop(protection);
    kill(second, Signal::SIGKILL).unwrap();
    site.until_free();
    let mut protection = site.start();
    assert_ne!(site.inode(), inode);
    site.keep(&mut protection);
    site.until_held();
}

#[test]
fn d05_a_holder_has_nothing_else_of_the_daemon() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    // A descriptor that whoever opened it forgot to have closed.
    let forgotten = File::open("/etc/hostname").unwrap();
    fcntl(&forgotten, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut protection = site.start();
    site.keep(&mut protection);
    let process = Path::new("/proc").join(site.until_held().to_string());
    until("it has closed what it was started with", PATIENCE, || {
        for file in fs::read_dir(process.join("fd"))? {
            let target = fs::read_link(file?.path())?.to_string_lossy().into_owned();
            anyhow::ensure!(target.starts_with("socket:") || target == "/dev/null", "{target}");
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(process.join("environ")).unwrap(), b"");
    // Who ends daemons by their name does not mean it.
    assert_eq!(fs::read(process.join("cmdline")).unwrap(), b"overlay-esp\0hold-esp\0");
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    assert!(process.ends_with(session), "it leads a session of its own: {stat}");
    // Who has the daemons reload by their name does not end it.
    let pid = site.until_held();
    kill(pid, Signal::SIGHUP).unwrap();
    drop(protection);
    drop(site.start());
    assert_eq!(site.until_held(), pid);
    let mode = fs::metadata(site.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn c03_a_holder_of_another_address_is_ended() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let mut protection = site.start();
    site.keep(&mut protection);
    let first = site.inode();
    drop(protection);
    let mut moved = site.try_start([127, 0, 0, 2].into()).unwrap();
    site.until_none_holds();
    assert_ne!(site.inode(), first);
    site.keep(&mut moved);
    site.until_held();
}

/// One of a release that greets otherwise, has the port, and knows how to end.
#[test]
fn r08_a_holder_of_another_release_is_ended() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let listener = UnixListener::bind(site.path()).unwrap();
    let port = site.netns.enter(|| UdpSocket::bind((OWN, PORT))).unwrap();
    let other = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"overlayd holds ESP otherwise\n").unwrap();
        let mut order = String::new();
        let _ = (&mut connection).take(4).read_to_string(&mut order);
        drop(port);
        order
    });
    let mut protection = site.start();
    assert_eq!(other.join().unwrap(), "end\n");
    site.until_kept(&mut protection);
}

/// It closes what it has while the daemon's connection waits to be accepted.
#[test]
fn d06_a_holder_that_ends_as_it_is_asked_has_left_the_port() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let listener = UnixListener::bind(site.path()).unwrap();
    let port = site.netns.enter(|| UdpSocket::bind((OWN, PORT))).unwrap();
    let other = thread::spawn(move || {
        let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::MAX).unwrap();
        drop(port);
        drop(listener);
    });
    let mut protection = site.start();
    other.join().unwrap();
    site.until_kept(&mut protection);
}

/// The next daemon finds it by its name.
#[test]
fn d06_a_holder_whose_name_was_removed_is_replaced() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let mut protection = site.start();
    site.keep(&mut protection);
    let (first, inode) = (site.until_held(), site.inode());
    fs::remove_file(site.path()).unwrap();
    site.keep(&mut protection);
    until("another one runs", PATIENCE, || {
        let found = site.holder()?;
        anyhow::ensure!(found != first, "{found}");
        Ok(())
    })
    .unwrap();
    drop(protection);
    drop(site.start());
    assert_eq!(site.inode(), inode);
}

#[test]
fn c03_a_holder_in_another_namespace_is_not_taken_for_one_here() {
    if lab::skip() {
        return;
    }
    let mut site = Site::new();
    let mut protection = site.start();
    site.keep(&mut protection);
    site.until_held();
    drop(protection);
    let before = core::mem::replace(&mut site.netns, Namespace::new().unwrap());
    let other = site.netns.enter(|| UdpSocket::bind((OWN, PORT))).unwrap();
    let refused = site.try_start(OWN).unwrap_err();
    assert!(matches!(refused, Error::EspPortInUse { .. }), "{refused}");
    drop(other);
    site.until_free();
    drop(site.start());
    site.netns = before;
    site.until_none_holds();
}

#[test]
fn d06_a_program_that_holds_nothing_is_started_ever_more_seldom() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let told = site.folder.path().join("told");
    let words = ["-c", &format!("echo >> {}", told.display())];
    let mut protection = site.start_with(OWN, "/bin/sh", &words).unwrap();
    let starts = || fs::read(&told).map_or(0, |lines| lines.len());
    until("it is started again", PATIENCE, || {
        site.keep(&mut protection);
        anyhow::ensure!(starts() > 1);
        Ok(())
    })
    .unwrap();
    let before = starts();
    for _ in 0..200 {
        site.keep(&mut protection);
    }
    // After 4 looks, 8, 16, 32, 64, and 64.
    assert!(starts() - before <= 6, "{} and {}", before, starts());
    drop(protection);
    // The next daemon has a program that does.
    let mut protection = site.start();
    site.until_kept(&mut protection);
}

#[test]
fn e05_somebody_else_at_the_port_is_named() {
    if lab::skip() {
        return;
    }
    let site = Site::new();
    let _other = site.netns.enter(|| UdpSocket::bind((OWN, PORT))).unwrap();
    let refused = site.try_start(OWN).unwrap_err().to_string();
    assert!(refused.contains("127.0.0.1:4500") && refused.contains("ss -unap"), "{refused}");
}
