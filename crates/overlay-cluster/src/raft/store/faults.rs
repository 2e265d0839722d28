//! A disk that fails when a test says so.

use std::{
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use redb::{BackendError, StorageBackend, backends::FileBackend};

use super::{File, Owner, Segments, Store, StoreError, segments::Beside, start};
use crate::raft::replica::Replica;

/// What the disk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fault {
    /// Works.
    #[default]
    None,
    /// Writes half of each block, and says so.
    ShortWrite,
    /// Does not sync.
    FailedSync,
    /// Has no room: writes nothing.
    Full,
    /// Syncs once there is another fault, or none.
    SlowSync,
}

/// Sets the fault of every file that was opened with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<(Mutex<Fault>, Condvar)>);

impl FaultyDisk {
    pub(crate) fn set(&self, fault: Fault) {
        *self.0.0.lock().unwrap() = fault;
        self.0.1.notify_all();
    }

    fn fault(&self) -> Fault {
        *self.0.0.lock().unwrap()
    }

    /// Like [`open`](super::open), on this disk.
    pub(crate) fn open(
        &self,
        path: &Path,
        owner: &Owner,
        replica: Option<Arc<Replica>>,
    ) -> Result<Store, StoreError> {
        let create = |builder: &redb::Builder| {
            let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
            let file = Box::new(FileBackend::new(file)?);
            builder.create_with_backend(FaultyBackend(file, self.clone()))
        };
        let segments = FaultySegments(Beside::new(path), self.clone());
        let file = File::open_by(path, owner, create, Box::new(segments));
        start(file?, owner.node, replica)
    }
}

#[derive(Debug)]
struct FaultySegments(Beside, FaultyDisk);

impl Segments for FaultySegments {
    fn numbers(&self) -> io::Result<Vec<u64>> {
        self.0.numbers()
    }

    fn open(&self, number: u64) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(FaultyBackend(self.0.open(number)?, self.1.clone())))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.0.remove(number)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.path(number)
    }

    /// Small, so that tests begin new ones.
    fn size(&self) -> u64 {
        4096
    }
}

#[derive(Debug)]
struct FaultyBackend(Box<dyn StorageBackend>, FaultyDisk);

fn error(kind: io::ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, what)
}

impl StorageBackend for FaultyBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        match self.1.fault() {
            Fault::Full if len > self.0.len()? => Err(full()),
            _ => self.0.set_len(len),
        }
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let (fault, changed) = &*self.1.0;
        let slow = |fault: &mut Fault| *fault == Fault::SlowSync;
        let fault = *changed.wait_while(fault.lock().unwrap(), slow).unwrap();
        match fault {
            Fault::FailedSync => Err(error(io::ErrorKind::Other, "the device did not answer")),
            _ => self.0.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        match self.1.fault() {
            Fault::ShortWrite => {
                self.0.write(offset, &data[..data.len() / 2])?;
                Err(error(io::ErrorKind::WriteZero, "half of it was written"))
            }
            Fault::Full => Err(full()),
            _ => self.0.write(offset, data),
        }
    }

    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(from, to)
    }
}

/// Error 28, as the system has it.
fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}
