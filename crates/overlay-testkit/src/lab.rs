//! A lab of network namespaces: made by tests, gone when the test is, however it ends.
//!
//! A namespace has no name and no mount: it lives as long as the file descriptor that stands for
//! it, so the kernel takes it and every device in it away even when the test is killed.
//!
//! ```text
//! Namespace "a" ── veth "va" ═══════ veth "vb" ── Namespace "b"
//!    │ run(["ip", …])   a command inside
//!    └ enter(|| …)      a closure inside, on a thread of its own
//! ```

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};

/// Where `ip netns` keeps namespaces, one file for each name.
pub const NAMED: &str = "/run/netns";

/// What Docker leaves to `iptables-restore`, and a rule of an administrator.
pub const DOCKER: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -p tcp --dport 81 -j DROP
COMMIT
";

/// Whether this process may make namespaces; else why not.
///
/// # Errors
/// Says what is missing and how to get it.
pub fn available() -> Result<()> {
    ensure!(
        Command::new("ip").arg("-V").output().is_ok_and(|o| o.status.success()),
        "the command `ip` is missing (Debian: apt install iproute2)"
    );
    Namespace::new().map(drop).context(
        "network namespaces cannot be made; be root, or run under `unshare --user --map-root-user`",
    )
}

/// Skips a test where namespaces cannot be made: says so, or fails when `CI=true`.
///
/// # Panics
/// When `CI=true` and they cannot.
pub fn skip() -> bool {
    let Err(reason) = available() else { return false };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{reason:#}");
    #[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
    {
        eprintln!("SKIPPED: {reason:#}");
    }
    true
}

/// Whether the kernel has ESP, by the `ip` command.
///
/// # Errors
/// What the command said, when it has none.
pub fn has_esp(host: &Namespace) -> Result<()> {
    host.ip(ESP).map(drop)
}

/// Skips a test where the kernel has no ESP, and says so. `cargo xtask test` runs those of the dataplane and
/// some with daemons in a virtual machine, where `ESP=required`; the rest take `cargo xtask vm`.
///
/// # Panics
/// When `ESP=required` and there is none, or when namespaces cannot be made.
pub fn skip_without_esp() -> bool {
    let host = Namespace::new().expect("make a namespace");
    let Err(reason) = has_esp(&host) else { return false };
    let required = std::env::var_os("ESP").is_some_and(|esp| esp == "required");
    assert!(!required, "{reason:#}");
    #[expect(clippy::print_stderr, reason = "a test that proves nothing must say so")]
    {
        eprintln!(
            "SKIPPED, the kernel has no ESP: {reason:#}; `cargo xtask vm` boots one that has"
        );
    }
    true
}

/// Makes an association.
const ESP: &str = "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode transport aead \
                   rfc4106(gcm(aes)) \
                   0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223 128";

/// Runs a test on a thread with a mount namespace of its own and an empty `/run`, so that what it
/// mounts ends with it.
///
/// # Panics
/// When the test does, or when there can be no mount namespace.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let ended = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).expect("leave for a new mount namespace");
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .expect("keep mounts to the new mount namespace");
            mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).expect("mount /run");
            test()
        });
        thread.join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new namespace with nothing but a loopback device, which is up.
    pub fn new() -> Result<Self> {
        // Namespaces belong to threads; this one leaves for the new one and ends.
        let made = thread::spawn(|| -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            Ok(File::open("/proc/thread-self/ns/net").context("open the namespace")?.into())
        });
        let Ok(made) = made.join() else { bail!("the thread that makes a namespace panicked") };
        let namespace = Self(made?);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A new namespace as `ip netns` makes it, which outlives this value until `ip netns delete`.
    pub fn named(name: &str) -> Result<Self> {
        let output = Command::new("ip").args(["netns", "add", name]).output().context("run ip")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip netns add {name}: {}", said.trim());
        let namespace = Self::open(&Path::new(NAMED).join(name))?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The namespace that a file stands for.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self(file.into()))
    }

    /// A path that opens the namespace, as long as this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Ends the namespace. Its path stands for nothing from now on, and for none that is made later.
    ///
    /// # Panics
    /// When there is no `/dev/null`.
    pub fn end(mut self) {
        let nothing = File::open("/dev/null").expect("open /dev/null");
        nix::unistd::dup2(nothing, &mut self.0).expect("take the place of the descriptor");
        core::mem::forget(self);
    }

    /// Runs `inside` on a thread that is in the namespace, and returns what it returns.
    ///
    /// # Panics
    /// When `inside` does.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let entered = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter a namespace");
                inside()
            });
            thread.join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a command inside.
    pub fn spawn<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<Running> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = program.as_ref().to_string_lossy().into_owned();
        let child = self.enter(move || command.spawn()).with_context(|| format!("run {name}"))?;
        Ok(Running { child: Some(child), name })
    }

    /// The processes in it that have this name.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self, name: &str) -> Result<Vec<Pid>> {
        let inode = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
        let own = inode(&self.path());
        let named = fs::read_dir("/proc")?.flatten().filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(process.path().join("comm")).ok()?;
            let here = inode(&process.path().join("ns/net")) == own;
            (comm.trim_end() == name && here).then(|| Pid::from_raw(pid))
        });
        Ok(named.collect())
    }

    /// Runs a command inside to its end and returns what it printed. Fails when it does.
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Result<String> {
        self.spawn(command)?.wait()
    }

    /// Runs `ip` with arguments that are separated by spaces.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let command: Vec<&str> = ["ip"].into_iter().chain(arguments.split_whitespace()).collect();
        self.run(&command).with_context(|| format!("ip {arguments}"))
    }

    /// Connects this namespace with another by a pair of virtual Ethernet devices, both up.
    pub fn connect(&self, name: &str, other: &Self, other_name: &str) -> Result<()> {
        let path = other.path();
        let path = path.display();
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {path}"))?;
        self.ip(&format!("link set {name} up"))?;
        other.ip(&format!("link set {other_name} up"))?;
        Ok(())
    }
}

/// A command that runs inside a namespace. Killed when this value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    name: String,
}

impl Running {
    /// The process, as this one sees it.
    ///
    /// # Panics
    /// Never: it is there until it was waited for.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it was not waited for").id()
    }

    /// Waits for the end and returns what was printed. Fails when the command did.
    pub fn wait(mut self) -> Result<String> {
        let child = self.child.take().context("waited twice")?;
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{} ended with {status}: {}", self.name, stderr.trim());
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_namespaces_reach_each_other_and_leave_nothing() {
        if skip() {
            return;
        }
        let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        a.connect("va", &b, "vb").unwrap();
        a.ip("address add 192.0.2.1/24 dev va").unwrap();
        b.ip("address add 192.0.2.2/24 dev vb").unwrap();
        let listener = b.enter(|| std::net::TcpListener::bind("192.0.2.2:0").unwrap());
        let address = listener.local_addr().unwrap();
        a.enter(|| std::net::TcpStream::connect(address).unwrap());
        assert!(a.ip("link show va").unwrap().contains("state UP"));
        assert!(a.run(&["false"]).is_err());
        assert!(
            !Command::new("ip").args(["link", "show", "va"]).output().unwrap().status.success()
        );
        let path = a.path();
        drop(a);
        assert!(!path.exists());
    }
}
