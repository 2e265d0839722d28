//! Where the segments of a log are kept.

use core::fmt;
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use redb::{StorageBackend, backends::FileBackend};

/// About what is written between two snapshots, which free the segments before them.
const SIZE: u64 = 8 << 20;

/// The files of a log, by their numbers.
pub trait Segments: fmt::Debug + Send + Sync {
    /// Those that are there.
    fn numbers(&self) -> io::Result<Vec<u64>>;

    /// Opens a file, or makes an empty one, whose name survives a power loss.
    fn open(&self, number: u64) -> io::Result<Box<dyn StorageBackend>>;

    /// Deletes a file, also while somebody has it open.
    fn remove(&self, number: u64) -> io::Result<()>;

    /// What messages call it.
    fn path(&self, number: u64) -> PathBuf;

    /// Bytes of a segment, after which another one is begun.
    fn size(&self) -> u64 {
        SIZE
    }
}

/// Files next to a state file, with its name and their number.
#[derive(Debug)]
pub(super) struct Beside(PathBuf);

impl Beside {
    pub(super) fn new(state: &Path) -> Self {
        Self(state.to_owned())
    }

    fn prefix(&self) -> String {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}.log-")
    }

    fn folder(&self) -> &Path {
        folder_of(&self.0)
    }
}

impl Segments for Beside {
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let prefix = self.prefix();
        let mut numbers = Vec::new();
        for file in fs::read_dir(self.folder())? {
            let name = file?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok());
            // Not 07, which is a file that somebody else named.
            numbers.extend(number.filter(|number| self.path(*number).file_name() == Some(&name)));
        }
        Ok(numbers)
    }

    fn open(&self, number: u64) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.path(number);
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let new = !path.exists();
        let file = options.open(&path)?;
        if new {
            sync_name(&path)?;
        }
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(file))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder().join(format!("{}{number}", self.prefix()))
    }
}

/// Where a file lies.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has a file's name, which is new, survive a power loss.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    fs::File::open(folder_of(path))?.sync_all()
}

/// Deletes a state file and the log beside it.
pub fn erase(state: &Path) -> io::Result<()> {
    // First: without it the others are nothing, so that a crash leaves no half of a store.
    match fs::remove_file(state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let log = Beside::new(state);
    log.numbers()?.into_iter().try_for_each(|number| log.remove(number))
}
