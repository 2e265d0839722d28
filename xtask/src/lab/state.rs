//! What there is of a lab, in `target/lab`: a file system in memory, which a boot takes away like the
//! namespaces and processes that it tells of.
//!
//! ```text
//!  target/lab/made       what `up` has made outside of it, and how many nodes
//!             nodeN/pid  the daemon; beside it its data, socket, log, and networks
//!  target/lab.shell      the process that has a lab in namespaces of its own
//! ```

use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::process::Process;

/// The lab of one workspace.
pub(super) struct State {
    target: PathBuf,
}

/// What `up` writes down before it makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// This many nodes are meant to be there.
    Nodes(u8),
    /// A directory; it goes if nothing else is in it.
    Directory(PathBuf),
    /// A namespace of this name.
    Namespace(String),
}

impl State {
    pub(super) fn open(root: &Path) -> Self {
        Self { target: root.join("target") }
    }

    /// Waits for others that change the lab. They wait as long as the answer is there.
    pub(super) fn lock(&self) -> Result<File> {
        let failed = || format!("lock {}", self.target.display());
        let lock = File::open(&self.target).with_context(failed)?;
        lock.lock().with_context(failed)?;
        Ok(lock)
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.target.join("lab")
    }

    /// The file that tells a node's daemon.
    pub(super) fn pid_file(&self, number: u8) -> PathBuf {
        self.folder().join(format!("node{number}/pid"))
    }

    fn made_file(&self) -> PathBuf {
        self.folder().join("made")
    }

    fn shell_file(&self) -> PathBuf {
        self.target.join("lab.shell")
    }

    /// Makes the folder. From now on there is a lab.
    pub(super) fn begin(&self, nodes: u8) -> Result<()> {
        let folder = self.folder();
        let failed = || format!("make {}", folder.display());
        fs::create_dir_all(&folder).with_context(failed)?;
        mount(Some("overlay-lab"), &folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(failed)?;
        self.write_down(&Made::Nodes(nodes))
    }

    /// Writes down what is about to be made.
    pub(super) fn write_down(&self, made: &Made) -> Result<()> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(self.made_file());
        file.and_then(|mut file| writeln!(file, "{made}")).context("write target/lab/made")
    }

    /// What was made, in that order. `None` when there is no lab.
    pub(super) fn made(&self) -> Result<Option<Vec<Made>>> {
        match fs::read_to_string(self.made_file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => {
                let text = text.context("read target/lab/made")?;
                Ok(Some(text.lines().filter_map(Made::parse).collect()))
            }
        }
    }

    /// Removes the folder. From now on there is no lab.
    pub(super) fn end(&self) -> Result<()> {
        let folder = self.folder();
        // One that was not mounted is removed all the same, if nothing is in it.
        while umount2(&folder, MntFlags::MNT_DETACH).is_ok() {}
        remove_directory(&folder)
    }

    /// Has a `/run` of its own in namespaces of its own.
    pub(super) fn mount_run() -> Result<()> {
        let none = None::<&str>;
        mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount /run")
    }

    /// The process that has a lab for one shell.
    pub(super) fn shell(&self) -> Option<Process> {
        Process::read(&self.shell_file()).filter(|process| process.runs())
    }

    pub(super) fn keep_shell(&self, process: Process) -> Result<()> {
        process.keep(&self.shell_file())
    }

    pub(super) fn forget_shell(&self) -> Result<()> {
        match fs::remove_file(self.shell_file()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("remove target/lab.shell")
            }
            _ => remove_directory(&self.folder()),
        }
    }

    pub(super) fn refuse_when_up(&self) -> Result<()> {
        let is_up = self.made()?.is_some() || self.shell().is_some();
        ensure!(!is_up, "a lab is up already; `cargo xtask lab down` ends it");
        Ok(())
    }
}

impl Made {
    fn parse(line: &str) -> Option<Self> {
        let (kind, what) = line.split_once(' ')?;
        Some(match kind {
            "nodes" => Self::Nodes(what.parse().ok()?),
            "directory" => Self::Directory(what.into()),
            "namespace" => Self::Namespace(what.into()),
            _ => return None,
        })
    }
}

impl Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "nodes {nodes}"),
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

/// Removes a directory, unless something is in it or it is gone.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
        {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path());
        assert_eq!(state.made().unwrap(), None);
        fs::create_dir_all(state.folder()).unwrap();
        let made = [
            Made::Nodes(3),
            Made::Directory("/run/a b".into()),
            Made::Namespace("lab-wire".into()),
        ];
        for made in &made {
            state.write_down(made).unwrap();
        }
        assert_eq!(state.made().unwrap().as_deref(), Some(&made[..]));
        assert!(state.refuse_when_up().is_err());
    }
}
