//! A process that has the socket of ESP in UDP, too. The kernel takes ESP in for as long as anybody has it
//! open, and a daemon that ends and comes back must not be missed.
//!
//! ```text
//!   daemon ── starts ────────────► holder     has a unix socket and that of ESP, and nothing else
//!      │ ── connects ────────────► │          notices by the connection when the holder ends
//!      ╎ (ends, however)           │          the kernel goes on
//!   daemon ── connects ──────────► │
//!      │ ◄── the socket of ESP ─── │          the same one: two at one port would share what comes
//!      │ ── "end" ───────────────► ┴          no encrypted network is there any more
//! ```
//!
//! A holder attends to one connection after the other: a node has one daemon at a time.
#![allow(
    unsafe_code,
    reason = "a descriptor that came over a socket is a number; the one use says so"
)]

use core::time::Duration;
use std::{
    ffi::{CString, OsString},
    fs::{self, Permissions},
    io::{self, ErrorKind, IoSliceMut, Read, Write},
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg,
            sockopt::PeerCredentials,
        },
    },
    unistd::{close, geteuid, setsid},
};

/// What a holder says, with the socket, to whoever connects. Another release's may say something else.
const GREETING: &[u8] = b"overlayd holds ESP in UDP 1\n";
/// What it is told to end with. All releases understand it.
const END: &[u8] = b"end\n";
/// Longest wait for a holder: it has nothing else to do, but a host may be busy.
const ANSWER: Duration = Duration::from_secs(10);
/// Name of its process, so that nobody who signals the daemon by name means it.
const NAME: &str = "overlay-esp";
/// Descriptors of a holder: the unix socket, and that of ESP.
const LISTENER: RawFd = 0;
const SOCKET: RawFd = 1;
const LAST_STANDARD: RawFd = 2;

/// How a holder is started, and where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its unix socket, which nobody else may connect to: in a directory that others cannot write to.
    pub path: PathBuf,
    /// A program that calls [`hold`] when it is started with `arguments`.
    pub program: PathBuf,
    /// These arguments.
    pub arguments: Vec<OsString>,
}

/// A holder that runs, as long as the connection is open.
#[derive(Debug)]
pub(super) struct Held {
    connection: UnixStream,
    /// If this process has started it.
    child: Option<Child>,
    /// It has said something, as no other program does.
    greeted: bool,
}

impl Holder {
    /// Starts one for a socket. It is not waited for: what it is given, it has.
    pub(super) fn start(&self, socket: &UdpSocket) -> io::Result<Held> {
        if UnixStream::connect(&self.path).is_ok() {
            let what = "another process listens there; end it";
            return Err(io::Error::new(ErrorKind::AddrInUse, what));
        }
        // One that has ended leaves its name.
        remove(&self.path)?;
        let listener = UnixListener::bind(&self.path)?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o600))?;
        let socket = socket.try_clone()?;
        let mut child = Command::new(&self.program)
            .arg0(NAME)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(listener))
            .stdout(OwnedFd::from(socket))
            .stderr(Stdio::null())
            .spawn()?;
        match UnixStream::connect(&self.path) {
            Ok(connection) => Ok(Held { connection, child: Some(child), greeted: false }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }
}

/// The holder that is found at a path, and the socket that it has, unless it is one of another kind.
pub(super) fn find(path: &Path) -> io::Result<Option<(Held, Option<UdpSocket>)>> {
    let connection = match UnixStream::connect(path) {
        Ok(connection) => connection,
        Err(error)
            // No unix socket can have a path that is too long.
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    connection.set_read_timeout(Some(ANSWER))?;
    match receive(&connection) {
        Ok(socket) => Ok(Some((Held { connection, child: None, greeted: true }, socket))),
        // It has ended meanwhile; before it had accepted the connection, or after.
        Err(error)
            if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Ends the holder at a path, if there is one, and removes what is left of one.
pub fn end(path: &Path) -> io::Result<()> {
    if let Some((held, _)) = find(path)? {
        held.end()?;
    }
    remove(path)
}

impl Held {
    /// Whether it still runs.
    pub(super) fn lives(&mut self) -> bool {
        let mut ignored = [0; 64];
        if self.connection.set_nonblocking(true).is_err() {
            return false;
        }
        loop {
            match (&self.connection).read(&mut ignored) {
                Ok(0) => return false,
                Ok(_) => self.greeted = true,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Whether it was a holder, as far as [`lives`](Self::lives) has seen.
    pub(super) const fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Has it end, and waits until it has closed what it has.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.connection.set_nonblocking(false)?;
        self.connection.set_read_timeout(Some(ANSWER))?;
        let told = self.connection.write_all(END);
        let closed = told.and_then(|()| io::copy(&mut self.connection, &mut io::sink()));
        // It may have ended already.
        let is_gone = |kind| matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        match closed {
            Err(error) if self.child.is_none() && !is_gone(error.kind()) => Err(error),
            // One that this process has started is ended in any case.
            _ => self.reap(),
        }
    }

    /// Takes note that it has ended, or is to.
    pub(super) fn reap(self) -> io::Result<()> {
        let Some(mut child) = self.child else { return Ok(()) };
        child.kill()?;
        child.wait().map(drop)
    }
}

/// What a holder does with the two sockets that [`Holder`] started it with, until it is told to end.
pub fn hold() -> io::Result<()> {
    // It is not ended with the daemon's session, or by a hangup that tells the daemon to reload.
    setsid()?;
    SigSet::from(Signal::SIGHUP).thread_block()?;
    close_others();
    // Last: who knows it by its name finds it ready.
    prctl::set_name(&CString::new(NAME)?)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    loop {
        let mut connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        // The name is everybody's for a moment, before its mode is set.
        if !is_trusted(&connection)? {
            continue;
        }
        match send(&connection) {
            Ok(()) => {}
            // Who asked and has gone need not be told.
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut order = [0; END.len()];
        if connection.read_exact(&mut order).is_ok() && order == *END {
            close(LISTENER)?;
            drop(listener);
            // The connection is closed last: whoever waits for that finds the port free.
            close(SOCKET)?;
            return Ok(());
        }
    }
}

/// Whether root or the daemon's own user is at the other end.
fn is_trusted(connection: &UnixStream) -> io::Result<bool> {
    let user = getsockopt(connection, PeerCredentials)?.uid();
    Ok(user == 0 || user == geteuid().as_raw())
}

/// What a daemon opens is closed in what it starts, mostly.
fn close_others() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> =
        open.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > LAST_STANDARD) {
        // That of the directory is closed by now.
        let _ = close(number);
    }
}

fn send(connection: &UnixStream) -> io::Result<()> {
    let socket = [SOCKET];
    let passed = [ControlMessage::ScmRights(&socket)];
    let text = [io::IoSlice::new(GREETING)];
    sendmsg::<()>(connection.as_raw_fd(), &text, &passed, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The socket that comes with a greeting; `None` when the greeting is another one.
fn receive(connection: &UnixStream) -> io::Result<Option<UdpSocket>> {
    let mut text = [0; 64];
    let mut texts = [IoSliceMut::new(&mut text)];
    let mut room = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = loop {
        match recvmsg::<()>(connection.as_raw_fd(), &mut texts, Some(&mut room), flags) {
            // A socket with a time limit is not resumed by itself after a signal.
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    let length = received.bytes;
    let mut sockets = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just opened these descriptors for this process, and nobody else here
            // knows of them.
            sockets.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let socket = sockets.pop().filter(|_| text[..length] == *GREETING);
    Ok(socket.map(UdpSocket::from))
}

/// Removes a name, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
