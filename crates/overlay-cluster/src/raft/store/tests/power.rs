//! The power fails before every single thing that the store asks of its disk, in turn.

use std::{
    io,
    sync::{Mutex, MutexGuard},
};

use overlay_api::internal::v1 as wire;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

use super::*;
use crate::raft::{codec, types::SnapshotMeta};

const SECTOR: usize = 512;

/// The state file, or a segment of the log.
type Name = Option<u64>;

/// What is in a file, and what of it was synced.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct Device {
    files: BTreeMap<Name, Content>,
    /// Deleted, which nobody waited for.
    deleted: BTreeMap<Name, Content>,
    /// What is still carried out.
    left: usize,
}

/// What a power loss leaves.
#[derive(Clone, Copy, Debug)]
enum Left {
    Synced,
    Everything,
    SomeSectors(u64),
}

impl Device {
    fn lose_power(&mut self, left: Left) {
        if !matches!(left, Left::Everything) {
            for (name, content) in std::mem::take(&mut self.deleted) {
                self.files.entry(name).or_insert(content);
            }
        }
        for Content { now, synced } in self.files.values_mut() {
            match left {
                Left::Everything => {}
                Left::Synced => now.clone_from(synced),
                Left::SomeSectors(seed) => {
                    let mut random = StdRng::seed_from_u64(seed);
                    synced.resize(now.len(), 0);
                    for (new, old) in now.chunks_mut(SECTOR).zip(synced.chunks(SECTOR)) {
                        if random.random_bool(0.5) {
                            new.copy_from_slice(old);
                        }
                    }
                }
            }
            synced.clone_from(now);
        }
        self.left = usize::MAX;
    }
}

#[derive(Clone, Debug)]
struct Handle {
    device: Arc<Mutex<Device>>,
    name: Name,
}

impl Handle {
    fn device(&self, asks: bool) -> io::Result<MutexGuard<'_, Device>> {
        let mut device = self.device.lock().unwrap();
        if device.left == 0 {
            return Err(io::Error::other("the power is off"));
        }
        device.left -= usize::from(asks);
        Ok(device)
    }

    fn on<T>(&self, asks: bool, work: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut device = self.device(asks)?;
        Ok(work(device.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?))
    }

    fn open(&self) -> Result<File, StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let create = |builder: &redb::Builder| {
            self.device.lock().unwrap().files.entry(None).or_default();
            builder.create_with_backend(Self { name: None, ..self.clone() })
        };
        File::open_by(&folder.path().join("state"), &owner(), create, Box::new(self.clone()))
    }
}

impl Segments for Handle {
    fn numbers(&self) -> io::Result<Vec<u64>> {
        Ok(self.device(false)?.files.keys().copied().flatten().collect())
    }

    fn open(&self, number: u64) -> io::Result<Box<dyn StorageBackend>> {
        let mut device = self.device(true)?;
        device.deleted.remove(&Some(number));
        device.files.entry(Some(number)).or_default();
        Ok(Box::new(Self { name: Some(number), ..self.clone() }))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        let mut device = self.device(true)?;
        let content = device.files.remove(&Some(number));
        device.deleted.extend(content.map(|content| (Some(number), content)));
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        format!("state.log-{number}").into()
    }

    fn size(&self) -> u64 {
        1024
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.on(false, |file| file.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.on(false, |file| out.copy_from_slice(&file.now[offset..offset + out.len()]))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.on(true, |file| file.now.resize(usize::try_from(len).unwrap(), 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.on(true, |file| file.synced.clone_from(&file.now))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.on(true, |file| file.now[offset..offset + data.len()].copy_from_slice(data))
    }
}

/// What the store has to hold.
#[derive(Clone, PartialEq, Debug, Default)]
struct Held {
    vote: Option<Vote>,
    entries: Vec<Entry>,
}

impl Held {
    fn in_file(file: &File) -> Self {
        Self { vote: file.vote().unwrap(), entries: file.entries(..).unwrap() }
    }

    fn carry_out(&mut self, write: &Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(*vote),
            Write::Append(entries) => self.entries.extend_from_slice(entries),
            Write::Truncate(from) => self.entries.retain(|entry| entry.log_id.index < *from),
            Write::Purge(upto) => self.entries.retain(|entry| entry.log_id.index > upto.index),
            _ => {}
        }
    }
}

fn snapshot(generation: u64, last: u64) -> Vec<Write> {
    let data = bytes::Bytes::from_static(b"state");
    let meta = SnapshotMeta { last_log_id: Some(log_id(last)), ..SnapshotMeta::default() };
    let meta = Some(codec::snapshot_meta_to_wire(&meta));
    let stored = wire::StoredSnapshot { meta, generation, pieces: 1, length: 5 };
    vec![
        Write::Piece { generation, number: 0, data },
        Write::Snapshot(Box::new(stored)),
        Write::Purge(log_id(last)),
    ]
}

/// What the store is asked for; each is acknowledged by itself.
fn steps() -> Vec<Vec<Write>> {
    let appended = |indexes: core::ops::Range<u64>| {
        indexes.map(|index| vec![Write::Append(vec![entry(index)])]).collect::<Vec<_>>()
    };
    [
        vec![vec![Write::Vote(Vote::new(1, NODE))]],
        appended(0..9),
        vec![vec![Write::Truncate(6)]],
        appended(6..12),
        vec![snapshot(1, 9), vec![Write::Vote(Vote::new(2, NODE))]],
        appended(12..16),
        vec![snapshot(2, 15)],
        appended(16..20),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns whether all was carried out.
fn run(left: usize, after: Left) -> bool {
    let device = Arc::new(Mutex::new(Device { left: usize::MAX, ..Device::default() }));
    let handle = Handle { device: Arc::clone(&device), name: None };
    let (mut before, mut held) = (Held::default(), Held::default());
    let file = handle.open().unwrap();
    device.lock().unwrap().left = left;
    let done = steps().iter().all(|step| {
        before = held.clone();
        for write in step {
            held.carry_out(write);
        }
        file.write(step).is_ok()
    });
    drop(file);
    device.lock().unwrap().lose_power(after);
    let file = handle.open().unwrap_or_else(|error| panic!("{left}, {after:?}: {error}"));
    let found = Held::in_file(&file);
    assert!(found == held || !done && found == before, "{left}, {after:?}: {found:?}");

    // It goes on from there, and nothing of what was lost comes back.
    let next = found.entries.last().map_or(20, |entry| entry.log_id.index + 1);
    let more: Vec<_> = (next..next + 3).map(entry).collect();
    if !found.entries.is_empty() {
        file.write(&[Write::Append(more.clone())]).unwrap();
    }
    drop(file);
    device.lock().unwrap().lose_power(Left::Synced);
    let again = Held::in_file(&handle.open().unwrap());
    if !found.entries.is_empty() {
        assert_eq!(again.entries, [found.entries, more].concat(), "{left}, {after:?}");
    }
    done
}

#[test]
fn r02_a_power_loss_at_any_moment_loses_nothing_that_was_acknowledged() {
    for left in 1.. {
        let all = [Left::Synced, Left::Everything, Left::SomeSectors(left as u64)];
        if all.map(|after| run(left, after)) == [true; 3] {
            assert!(left > 100, "{left}");
            return;
        }
    }
}
