//! A network's devices and entries in the kernel, and changes to them.

use nix::errno::Errno;
use overlay_types::NetworkId;

use super::{
    announce::{Announcer, News},
    directory::NetworkFile,
    fence::{Fenced, Wanted},
    inside::Inside,
    netlink::{Refusal, RouteSocket},
    netns::NetNs,
    stations::{Change, Devices, Stations},
};
use crate::{Error, desired::Network, wire::announcement::Announcement};

/// As they were last read or made.
#[derive(Debug, Default)]
pub(super) struct Programmed {
    pub(super) bridge: u32,
    pub(super) devices: Devices,
    pub(super) stations: Stations,
    pub(super) fence: Fenced,
    /// Open sockets, if they are kept.
    pub(super) inside: Option<Inside>,
}

impl Programmed {
    /// Makes changes in a network's namespace, and says of each whether it is made. An error when none is.
    pub(super) fn change(
        &mut self,
        id: NetworkId,
        file: &NetworkFile,
        fence: Option<Wanted>,
        changes: &[Change],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let inside = file.enter(&mut self.inside)?;
        // Before the entries that let frames of a port in.
        if let Some(fence) = fence {
            self.fence.put(inside, fence)?;
        }
        Ok(program(&inside.route, id, changes))
    }

    /// Has the endpoints of this node told who has come.
    pub(super) fn announce(
        &self,
        announcer: &Announcer,
        file: &NetworkFile,
        network: &Network,
        newcomers: Vec<Announcement>,
    ) {
        if newcomers.is_empty() {
            return;
        }
        let ports = self.fence.ports();
        let ports = ports.filter_map(|(id, port)| Some((port, network.locals.get(&id)?.mac)));
        let ports: Vec<_> = ports.collect();
        if !ports.is_empty()
            && let Ok(netns) = NetNs::open(&file.path)
        {
            announcer.tell(News { netns, ports, newcomers });
        }
    }
}

/// Tells the kernel: first what goes, then what comes, each in as few calls as there can be.
fn program(inside: &RouteSocket, network: NetworkId, changes: &[Change]) -> Vec<Result<(), Error>> {
    let removals = changes.iter().flat_map(|change| change.removed.iter().map(|e| e.remove()));
    let mut removed = inside.batch(removals.collect()).into_iter().map(|result| match result {
        // Of what is not there, nothing has to be removed.
        Err(Refusal { errno: Errno::ENOENT | Errno::ESRCH | Errno::ENODEV, .. }) => Ok(()),
        result => result,
    });
    let additions = changes.iter().flat_map(|change| change.put.iter().map(|e| e.put()));
    let mut added = inside.batch(additions.collect()).into_iter();
    let failed = |source| Error::Kernel {
        step: "program an endpoint of",
        subject: format!("network {network}"),
        source,
    };
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        let mut results: Vec<_> = removed.by_ref().take(change.removed.len()).collect();
        results.extend(added.by_ref().take(change.put.len()));
        outcomes.push(results.into_iter().collect::<Result<(), _>>().map_err(failed));
    }
    outcomes
}
