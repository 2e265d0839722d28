//! A disk in memory that knows what was synced: a crash loses, tears or keeps the rest.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use overlay_cluster::raft::store::{self, Segments};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::{Database, DatabaseError, StorageBackend};

/// What a disk writes at once; a torn write ends at a multiple of it.
const SECTOR: usize = 512;

/// How a disk fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A sync answers with an error.
    Sync,
    /// There is no room for one more byte.
    Full,
}

/// A disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<Device>>);

#[derive(Debug)]
struct Device {
    files: BTreeMap<Name, Content>,
    /// Who may write: only the last that opened it, and nobody after a crash.
    opened: u64,
    fault: Option<Fault>,
    /// It says that it has synced, and has not.
    lies: bool,
    random: StdRng,
}

/// The state file, or a segment of the log.
type Name = Option<u64>;

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// What lies over the synced bytes, oldest first, with what it replaced.
    unsynced: Vec<Overwrite>,
}

#[derive(Debug)]
struct Overwrite {
    offset: usize,
    old: Vec<u8>,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Device {
            files: BTreeMap::new(),
            opened: 0,
            fault: None,
            lies: false,
            random: StdRng::seed_from_u64(seed),
        })))
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap()
    }

    /// From now on it fails so, or works.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.device().fault = fault;
    }

    /// From now on its syncs do nothing.
    pub(crate) fn lie(&self) {
        self.device().lies = true;
    }

    /// Nothing is on it any more.
    pub(crate) fn erase(&self) {
        self.device().files.clear();
    }

    /// The machine stops: whoever had it open reaches it no more. With `power_loss`, what was not
    /// synced is lost, torn or there; else the system still writes all of it.
    pub(crate) fn crash(&self, power_loss: bool) {
        let mut device = self.device();
        device.opened += 1;
        device.fault = None;
        let Device { files, lies, random, .. } = &mut *device;
        for file in files.values_mut() {
            let unsynced = std::mem::take(&mut file.unsynced);
            if power_loss {
                file.lose(unsynced, *lies, random);
            }
        }
    }
}

impl Content {
    fn lose(&mut self, unsynced: Vec<Overwrite>, lies: bool, random: &mut StdRng) {
        let mut lost = Vec::with_capacity(unsynced.len());
        for Overwrite { offset, old } in unsynced.into_iter().rev() {
            let range = offset..offset + old.len();
            let new = self.bytes[range.clone()].to_vec();
            self.bytes[range].copy_from_slice(&old);
            lost.push((offset, new));
        }
        if lies || random.random_bool(0.5) {
            return;
        }
        // The disk had written some of it, in an order of its own.
        for (offset, new) in lost.into_iter().rev() {
            let kept = match random.random_range(0..3) {
                0 => 0,
                1 => new.len(),
                _ => random.random_range(0..=new.len() / SECTOR) * SECTOR,
            };
            self.bytes[offset..offset + kept].copy_from_slice(&new[..kept]);
        }
    }
}

impl Device {
    fn check_room(&self) -> io::Result<()> {
        match self.fault {
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl store::Disk for SimDisk {
    fn open(&self, builder: &redb::Builder) -> Result<Database, DatabaseError> {
        let mut device = self.device();
        device.opened += 1;
        let opened = device.opened;
        device.files.entry(None).or_default();
        drop(device);
        builder.create_with_backend(Handle { disk: self.clone(), name: None, opened })
    }

    fn segments(&self) -> Box<dyn Segments> {
        let opened = self.device().opened;
        Box::new(Handle { disk: self.clone(), name: None, opened })
    }

    fn latency(&self) -> Duration {
        let mut device = self.device();
        // Mostly a good SSD; now and then it has something else to do.
        let slow = device.random.random_bool(0.02);
        let limit = if slow { 50_000 } else { 2_000 };
        Duration::from_micros(device.random.random_range(100..limit))
    }
}

/// A file, in one opening of the disk.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    name: Name,
    opened: u64,
}

impl Handle {
    fn device(&self) -> io::Result<MutexGuard<'_, Device>> {
        let device = self.disk.device();
        if device.opened == self.opened {
            return Ok(device);
        }
        Err(io::Error::other("the machine was switched off"))
    }

    /// Works on the file, if it was not deleted.
    fn on<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut device = self.device()?;
        work(device.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl Segments for Handle {
    fn numbers(&self) -> io::Result<Vec<u64>> {
        Ok(self.device()?.files.keys().copied().flatten().collect())
    }

    /// At once on the disk, as are deletions.
    fn open(&self, number: u64) -> io::Result<Box<dyn StorageBackend>> {
        self.device()?.files.entry(Some(number)).or_default();
        Ok(Box::new(Self { disk: self.disk.clone(), name: Some(number), opened: self.opened }))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.device()?.files.remove(&Some(number));
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        format!("state.log-{number}").into()
    }

    /// Small, so that a run has several of them.
    fn size(&self) -> u64 {
        16 << 10
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.on(|file| Ok(file.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.on(|file| {
            let offset = usize::try_from(offset).expect("small");
            let bytes = file.bytes.get(offset..offset + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    /// At once on the disk: file systems write lengths to their journal.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("small");
        let room = self.device()?.check_room();
        self.on(|file| {
            if len > file.bytes.len() {
                room?;
            }
            file.bytes.resize(len, 0);
            file.unsynced.retain_mut(|overwrite| {
                overwrite.old.truncate(len.saturating_sub(overwrite.offset));
                !overwrite.old.is_empty()
            });
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let device = self.device()?;
        if device.fault == Some(Fault::Sync) {
            return Err(io::Error::other("the device did not answer"));
        }
        let lies = device.lies;
        drop(device);
        self.on(|file| {
            if !lies {
                file.unsynced.clear();
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.device()?.check_room()?;
        self.on(|file| {
            let offset = usize::try_from(offset).expect("small");
            let place = file.bytes.get_mut(offset..offset + data.len());
            let place = place.ok_or(io::ErrorKind::UnexpectedEof)?;
            let old = place.to_vec();
            place.copy_from_slice(data);
            file.unsynced.push(Overwrite { offset, old });
            Ok(())
        })
    }
}
