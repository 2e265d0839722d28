//! A disk in memory that knows what was synced: a crash loses, tears or keeps the rest.

use core::time::Duration;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use overlay_cluster::raft::store;
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
    bytes: Vec<u8>,
    /// What lies over the synced bytes, oldest first, with what it replaced.
    unsynced: Vec<Overwrite>,
    /// Who may write: only the last that opened it, and nobody after a crash.
    opened: u64,
    fault: Option<Fault>,
    /// It says that it has synced, and has not.
    lies: bool,
    random: StdRng,
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
            bytes: Vec::new(),
            unsynced: Vec::new(),
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
        let mut device = self.device();
        device.bytes.clear();
        device.unsynced.clear();
    }

    /// The machine stops: whoever had it open reaches it no more. With `power_loss`, what was not
    /// synced is lost, torn or there; else the system still writes all of it.
    pub(crate) fn crash(&self, power_loss: bool) {
        let mut device = self.device();
        device.opened += 1;
        device.fault = None;
        let unsynced = std::mem::take(&mut device.unsynced);
        if power_loss {
            device.lose(unsynced);
        }
    }
}

impl Device {
    fn lose(&mut self, unsynced: Vec<Overwrite>) {
        let mut lost = Vec::with_capacity(unsynced.len());
        for Overwrite { offset, old } in unsynced.into_iter().rev() {
            let range = offset..offset + old.len();
            let new = self.bytes[range.clone()].to_vec();
            self.bytes[range].copy_from_slice(&old);
            lost.push((offset, new));
        }
        if self.lies || self.random.random_bool(0.5) {
            return;
        }
        // The disk had written some of it, in an order of its own.
        for (offset, new) in lost.into_iter().rev() {
            let kept = match self.random.random_range(0..3) {
                0 => 0,
                1 => new.len(),
                _ => self.random.random_range(0..=new.len() / SECTOR) * SECTOR,
            };
            self.bytes[offset..offset + kept].copy_from_slice(&new[..kept]);
        }
    }

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
        drop(device);
        builder.create_with_backend(Handle { disk: self.clone(), opened })
    }

    fn latency(&self) -> Duration {
        let mut device = self.device();
        // Mostly a good SSD; now and then it has something else to do.
        let slow = device.random.random_bool(0.02);
        let limit = if slow { 50_000 } else { 2_000 };
        Duration::from_micros(device.random.random_range(100..limit))
    }
}

/// One opening of the disk.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
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
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.device()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let device = self.device()?;
        let offset = usize::try_from(offset).expect("small");
        let bytes = device.bytes.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// At once on the disk: file systems write lengths to their journal.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut device = self.device()?;
        let len = usize::try_from(len).expect("small");
        if len > device.bytes.len() {
            device.check_room()?;
        }
        device.bytes.resize(len, 0);
        device.unsynced.retain_mut(|overwrite| {
            overwrite.old.truncate(len.saturating_sub(overwrite.offset));
            !overwrite.old.is_empty()
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut device = self.device()?;
        if device.fault == Some(Fault::Sync) {
            return Err(io::Error::other("the device did not answer"));
        }
        if !device.lies {
            device.unsynced.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut device = self.device()?;
        device.check_room()?;
        let offset = usize::try_from(offset).expect("small");
        let place = device.bytes.get_mut(offset..offset + data.len());
        let place = place.ok_or(io::ErrorKind::UnexpectedEof)?;
        let old = place.to_vec();
        place.copy_from_slice(data);
        device.unsynced.push(Overwrite { offset, old });
        Ok(())
    }
}
