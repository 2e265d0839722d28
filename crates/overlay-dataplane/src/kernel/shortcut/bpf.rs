//! Programs and tables of BPF in the kernel, by its system call.

#![allow(
    unsafe_code,
    reason = "no library loads a program that is not a file of a compiler; each use says why it is right"
)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::libc;

use super::program::{KEY_LEN, Program, Table, VALUE_LEN};
use crate::{Error, kernel::call};

/// Commands (linux/bpf.h).
#[derive(Debug, Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapLookUp = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    Load = 5,
    ProgramById = 13,
    MapById = 14,
    Info = 15,
}

/// `BPF_MAP_TYPE_HASH`, `BPF_PROG_TYPE_SCHED_CLS`.
const HASH: u32 = 1;
const CLASSIFIER: u32 = 3;
/// What programs and tables are called where all of the host's are listed. At most 15 characters.
const NAME: &[u8] = b"overlay_short";
const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// How often a program is loaded that a signal keeps from being.
const TRIES: usize = 5;
/// Octets of the verifier's report.
const REPORT_LEN: usize = 1 << 16;

/// `union bpf_attr`, as far as these commands go.
#[derive(Debug)]
#[repr(C, align(8))]
struct Attributes([u8; 72]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 72])
    }

    fn number(mut self, at: usize, number: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        self
    }

    fn descriptor(self, at: usize, file: &OwnedFd) -> Self {
        self.number(at, file.as_raw_fd().cast_unsigned())
    }

    fn bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Where the kernel reads.
    fn read(self, at: usize, from: &[u8]) -> Self {
        self.bytes(at, &(from.as_ptr() as u64).to_ne_bytes())
    }

    /// Where the kernel writes.
    fn write(self, at: usize, to: &mut [u8]) -> Self {
        self.bytes(at, &(to.as_mut_ptr() as u64).to_ne_bytes())
    }

    /// Gives a command to the kernel.
    ///
    /// # Safety
    /// What the attributes point to has the length that the command reads and writes, and lives until
    /// this returns.
    unsafe fn give(&mut self, command: Command) -> io::Result<i32> {
        call()?;
        let length = self.0.len();
        // SAFETY: the attributes are as long as is said; the rest is the caller's promise.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command as libc::c_int, self.0.as_mut_ptr(), length)
        };
        // Descriptors and zero.
        i32::try_from(result)
            .ok()
            .filter(|result| *result >= 0)
            .ok_or_else(io::Error::last_os_error)
    }

    /// As [`give`](Self::give), a command that makes a descriptor.
    ///
    /// # Safety
    /// As there.
    unsafe fn open(&mut self, command: Command) -> io::Result<OwnedFd> {
        // SAFETY: the promise is the same, and what these commands return is a new descriptor.
        unsafe { Ok(OwnedFd::from_raw_fd(self.give(command)?)) }
    }
}

/// A table of stations.
#[derive(Debug)]
pub(super) struct Stations {
    map: OwnedFd,
    /// Most stations that it holds.
    pub(super) room: u32,
}

impl Stations {
    /// A new table, without stations.
    pub(super) fn new(room: u32) -> Result<Self, Error> {
        let mut attributes = Attributes::new()
            .number(0, HASH)
            .number(4, KEY_LEN as u32)
            .number(8, VALUE_LEN as u32)
            .number(12, room)
            .bytes(28, NAME);
        // SAFETY: nothing is pointed to.
        let map = unsafe { attributes.open(Command::MapCreate) };
        let map =
            map.map_err(|source| Error::ShortWay { step: "make a table of stations", source })?;
        Ok(Self { map, room })
    }

    /// All of it.
    pub(super) fn read(&self) -> Result<Table, Error> {
        let failed = |source| Error::ShortWay { step: "read a table of stations", source };
        let mut table = Table::new();
        let mut last: Option<[u8; KEY_LEN]> = None;
        // Somebody who changes it at the same time could have this begin anew for ever.
        for _ in 0..=self.room {
            let (mut key, mut value) = ([0; KEY_LEN], [0; VALUE_LEN]);
            let mut next = Attributes::new().descriptor(0, &self.map).write(16, &mut key);
            if let Some(last) = &last {
                next = next.read(8, last);
            }
            // SAFETY: the keys are as long as the table's, and live.
            match unsafe { next.give(Command::MapNextKey) } {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(table),
                next => drop(next.map_err(failed)?),
            }
            let at = Attributes::new().descriptor(0, &self.map);
            let mut at = at.read(8, &key).write(16, &mut value);
            // SAFETY: key and value are as long as the table's, and live.
            unsafe { at.give(Command::MapLookUp) }.map_err(failed)?;
            table.insert(key, value);
            last = Some(key);
        }
        Ok(table)
    }

    /// Has it be `after`, where it is `before`.
    pub(super) fn change(&self, before: &Table, after: &Table) -> Result<(), Error> {
        let failed = |source| Error::ShortWay { step: "change a table of stations", source };
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            let mut gone = Attributes::new().descriptor(0, &self.map).read(8, key);
            // SAFETY: the key is as long as the table's, and lives.
            match unsafe { gone.give(Command::MapDelete) } {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => drop(done.map_err(failed)?),
            }
        }
        for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
            let put = Attributes::new().descriptor(0, &self.map);
            let mut put = put.read(8, key).read(16, value);
            // SAFETY: key and value are as long as the table's, and live.
            unsafe { put.give(Command::MapUpdate) }.map_err(failed)?;
        }
        Ok(())
    }
}

/// A program in the kernel, and its table.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) file: OwnedFd,
    /// The number that the kernel has for it.
    pub(super) id: u32,
    pub(super) stations: Stations,
}

impl Loaded {
    /// Loads a program.
    pub(super) fn new(program: Program, stations: Stations) -> Result<Self, Error> {
        let failed = |source| Error::ShortWay { step: "load the short way", source };
        let instructions = program.instructions(stations.map.as_raw_fd());
        let attributes = || {
            Attributes::new()
                .number(0, CLASSIFIER)
                .number(4, (instructions.len() / 8) as u32)
                .read(8, &instructions)
                .read(16, LICENSE)
                .bytes(48, NAME)
        };
        // SAFETY: there are as many instructions as is said, the license ends with a zero, both live.
        let load = || unsafe { attributes().open(Command::Load) };
        // A signal interrupts the verifier.
        let is_over = |loaded: &io::Result<OwnedFd>| {
            !loaded.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let mut tries = (0..TRIES).map(|_| load());
        let loaded = tries.find(is_over).unwrap_or_else(load);
        let refusals = [io::ErrorKind::InvalidInput, io::ErrorKind::PermissionDenied];
        let file = match loaded {
            Err(error) if refusals.contains(&error.kind()) => {
                let mut report = vec![0; REPORT_LEN];
                let attributes = attributes().number(24, 1).number(28, REPORT_LEN as u32);
                // SAFETY: the same, and the report is as long as is said.
                let again = unsafe { attributes.write(32, &mut report).open(Command::Load) };
                again.map_err(|_| {
                    io::Error::new(error.kind(), format!("{error}{}", last_line(&report)))
                })
            }
            loaded => loaded,
        };
        let file = file.map_err(failed)?;
        let id = ProgramInfo::of(&file).map_err(failed)?.id;
        Ok(Self { file, id, stations })
    }

    /// The program of this number, which an earlier process loaded. `None` when it is none of ours.
    pub(super) fn find(id: u32) -> io::Result<Option<Self>> {
        // SAFETY: nothing is pointed to.
        let file = unsafe { Attributes::new().number(0, id).open(Command::ProgramById)? };
        let Some(map) = ProgramInfo::of(&file)?.table else { return Ok(None) };
        // SAFETY: nothing is pointed to.
        let map = unsafe { Attributes::new().number(0, map).open(Command::MapById)? };
        let mut info = [0; 24];
        inform(&map, &mut info)?;
        let number = |at: usize| word(&info, at);
        let fits = [number(0), number(8), number(12)];
        let is_ours = fits == [HASH, KEY_LEN as u32, VALUE_LEN as u32];
        let stations = Stations { map, room: number(16) };
        Ok(is_ours.then_some(Self { file, id, stations }))
    }
}

/// What the kernel tells of a program.
struct ProgramInfo {
    id: u32,
    /// Number of its table, if it has one, and one only.
    table: Option<u32>,
}

impl ProgramInfo {
    /// `struct bpf_prog_info`, up to the numbers of its tables.
    fn of(program: &OwnedFd) -> io::Result<Self> {
        let mut tables = [0; 4];
        let mut info = [0; 64];
        info[52..56].copy_from_slice(&1_u32.to_ne_bytes());
        info[56..].copy_from_slice(&(tables.as_mut_ptr() as u64).to_ne_bytes());
        inform(program, &mut info)?;
        let table = (word(&info, 52) == 1).then(|| u32::from_ne_bytes(tables));
        Ok(Self { id: word(&info, 4), table })
    }
}

/// Has the kernel tell of a program or table. Numbers in `info` that it takes for pointers are ones.
fn inform(about: &OwnedFd, info: &mut [u8]) -> io::Result<()> {
    let asked = Attributes::new().descriptor(0, about).number(4, info.len() as u32);
    // SAFETY: the answer has the length that is said; what it points to is a table of one number for
    // programs, and nothing for tables.
    unsafe { asked.write(8, info).give(Command::Info) }.map(drop)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What the verifier says last, before its statistics; it says nothing to those who may not ask it.
fn last_line(report: &[u8]) -> String {
    let text = report.split(|octet| *octet == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().rev().filter(|line| !line.starts_with("processed "));
    lines.next().map_or_else(String::new, |line| format!(": {line}"))
}
