//! The short way of frames, past the bridge: from an endpoint's port to the VXLAN device or another
//! port, and from the VXLAN device to an endpoint's interface, in one step of the kernel's.
//!
//! A [`program`] does that, before the fence, with what it knows to be right; fence and bridge have
//! the rest, and all of it where there can be no program. One process loads it ([`bpf`]), and it goes on
//! without that process where it was put ([`classifier`]); a later process finds it there, with its
//! table.

mod assembler;
mod bpf;
mod classifier;
mod program;

use std::collections::BTreeSet;

use nix::errno::Errno;

use self::{
    bpf::{Loaded, Stations},
    classifier::Classifier,
    program::{Program, stations},
};
use super::{
    fence::Wanted,
    netlink::{Refusal, RouteSocket},
};
use crate::Error;

/// Least room of a table. One that is full is made anew, with twice the room.
const ROOM: u32 = 16;

/// The short way of one network, as it was last read or made.
#[derive(Debug, Default)]
pub(super) struct Shortcut {
    /// `None` when it is not known which program runs.
    loaded: Option<Loaded>,
}

impl Shortcut {
    /// Whether the kernel has the short way as it shall be. `before` is what is known of the same.
    pub(super) fn read(&mut self, route: &RouteSocket, wanted: &Wanted, before: Self) -> bool {
        // Networks are carried without it, and what is not as it shall be is made anew.
        self.is_there(route, wanted, before).unwrap_or_else(|error| {
            tracing::warn!(%error, "the short way past a bridge is not what it was");
            self.loaded = None;
            false
        })
    }

    fn is_there(
        &mut self,
        route: &RouteSocket,
        wanted: &Wanted,
        before: Self,
    ) -> Result<bool, Error> {
        let found = devices(wanted).map(|index| find(route, index));
        let found = found.collect::<Result<BTreeSet<_>, _>>()?;
        if !wanted.shortens {
            return Ok(found == [None].into());
        }
        let name = Program::of(wanted).name();
        let one = found.first().cloned().flatten().filter(|one| one.name == name);
        let Some(one) = one.filter(|_| found.len() == 1) else { return Ok(false) };
        let known = before.loaded.filter(|loaded| loaded.id == one.id);
        // Who may load programs may not see those of others, in some places: then it is loaded again.
        self.loaded = known.or_else(|| Loaded::find(one.id).ok().flatten());
        let Some(loaded) = &self.loaded else { return Ok(false) };
        Ok(loaded.stations.read()? == stations(&wanted.fence))
    }

    /// Lets go of what is open. The program goes on.
    pub(super) fn close(&mut self) {
        self.loaded = None;
    }

    /// Makes it what it shall be, whatever is there of it. `before` is what the kernel has, if that is
    /// known. Where it cannot be made there is none, and the answer is no.
    pub(super) fn put(
        &mut self,
        route: &RouteSocket,
        wanted: &Wanted,
        before: Option<&Wanted>,
    ) -> Result<bool, Error> {
        if wanted.shortens {
            match self.make(route, wanted, before) {
                Ok(()) => return Ok(true),
                Err(error) => tracing::warn!(%error, "a network's frames go by its bridge"),
            }
        }
        // One whose table nobody keeps must not stay.
        self.loaded = None;
        let removed: Vec<_> = devices(wanted).map(|index| remove(route, index)).collect();
        removed.into_iter().collect::<Result<(), _>>()?;
        Ok(!wanted.shortens)
    }

    fn make(
        &mut self,
        route: &RouteSocket,
        wanted: &Wanted,
        before: Option<&Wanted>,
    ) -> Result<(), Error> {
        let (program, stations) = (Program::of(wanted), stations(&wanted.fence));
        let name = program.name();
        let loaded = self.loaded.take();
        let before = before.filter(|before| before.shortens && Program::of(before) == program);
        let known = before.and_then(|before| {
            let running = || {
                let one = find(route, wanted.fence.tunnel.1).ok()??;
                Loaded::find(one.id).ok()?.filter(|_| one.name == name)
            };
            let loaded = loaded.or_else(running)?;
            (loaded.stations.room as usize >= stations.len()).then_some((loaded, before))
        });
        let (loaded, there) = if let Some((loaded, before)) = known {
            loaded.stations.change(&program::stations(&before.fence), &stations)?;
            (loaded, devices(before).collect())
        } else {
            let room = ROOM.max((stations.len() as u32).next_power_of_two());
            let table = Stations::new(room)?;
            table.change(&program::Table::new(), &stations)?;
            (Loaded::new(program, table)?, BTreeSet::new())
        };
        for index in devices(wanted).filter(|index| !there.contains(index)) {
            attach(route, index, &loaded, &name)?;
        }
        self.loaded = Some(loaded);
        Ok(())
    }
}

#[cfg(test)]
impl Shortcut {
    /// As somebody else may do.
    pub(super) fn empty_table(&self) -> Result<(), Error> {
        let stations = &self.loaded.as_ref().expect("a program").stations;
        stations.change(&stations.read()?, &program::Table::new())
    }

    /// How many stations the kernel's table has.
    pub(super) fn table_len(&self) -> usize {
        self.loaded.as_ref().expect("a program").stations.read().expect("a table").len()
    }
}

/// Tries both programs at a device of the calling thread's namespace that nobody else uses.
pub(super) fn attempt(route: &RouteSocket, index: u32) -> Result<(), Error> {
    [false, true].into_iter().try_for_each(|floods| {
        let program = Program { tunnel: index, floods };
        attach(route, index, &Loaded::new(program, Stations::new(ROOM)?)?, &program.name())
    })
}

/// The VXLAN device, and the ports.
fn devices(wanted: &Wanted) -> impl Iterator<Item = u32> {
    let ports = wanted.fence.ports.values().map(|port| port.index);
    core::iter::once(wanted.fence.tunnel.1).chain(ports)
}

fn find(route: &RouteSocket, index: u32) -> Result<Option<Classifier>, Error> {
    match route.get(classifier::find(index), Classifier::parse) {
        // The device has no classifiers at all, or there is another one in the place; the kernel knows none.
        Err(refusal) if [Errno::EINVAL, Errno::EOPNOTSUPP].contains(&refusal.errno) => Ok(None),
        found => found.map_err(failed("find", index)),
    }
}

fn attach(route: &RouteSocket, index: u32, loaded: &Loaded, name: &str) -> Result<(), Error> {
    match route.request(classifier::prepare(index)) {
        Err(refusal) if refusal.errno == Errno::EEXIST => {}
        prepared => prepared.map_err(failed("prepare", index))?,
    }
    route.request(classifier::put(index, &loaded.file, name)).map_err(failed("put", index))
}

fn remove(route: &RouteSocket, index: u32) -> Result<(), Error> {
    if find(route, index)?.is_none() {
        return Ok(());
    }
    route.request(classifier::remove(index)).map_err(failed("remove", index))
}

fn failed(step: &'static str, index: u32) -> impl FnOnce(Refusal) -> Error {
    move |source| Error::Kernel {
        step,
        subject: format!("the short way at device {index}"),
        source,
    }
}
