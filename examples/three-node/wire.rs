//! What crosses between the nodes: counted by port, searched for markers, written to a pcap file.

#![expect(clippy::disallowed_methods, reason = "packets in a file carry the time of day")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use overlay_dataplane::user::capture::{Captured, Direction, PcapWriter};

use crate::lab::LabNode;

/// Datagrams to one UDP port.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) datagrams: u64,
    pub(crate) octets: u64,
}

/// Everything that the nodes send to each other in VXLAN and ESP.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    ports: BTreeMap<u16, Count>,
    /// What is searched for, and in how many datagrams it was.
    markers: BTreeMap<&'static str, u64>,
    pcap: Option<PcapWriter<BufWriter<File>>>,
    /// Why the file ends early.
    pcap_failed: Option<io::Error>,
}

impl Wire {
    /// Also writes to a file from now on.
    pub(crate) fn record(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        self.seen().pcap = Some(PcapWriter::new(BufWriter::new(file))?);
        Ok(())
    }

    /// Taps a node. Each datagram is taken where it is sent, so it counts once.
    pub(crate) fn tap(&self, node: &LabNode) -> Result<()> {
        let wire = self.clone();
        let capture = Box::new(move |datagram: Captured<'_>| {
            if datagram.direction == Direction::Sent {
                wire.seen().take(&datagram);
            }
        });
        Ok(node.handle.capture(Some(capture))?)
    }

    /// Forgets the counts, and counts from now on the datagrams with these markers in clear.
    pub(crate) fn search(&self, markers: &[&'static str]) {
        let mut seen = self.seen();
        seen.ports.clear();
        seen.markers = markers.iter().map(|marker| (*marker, 0)).collect();
    }

    /// Datagrams by port, and by marker.
    pub(crate) fn counts(&self) -> (BTreeMap<u16, Count>, BTreeMap<&'static str, u64>) {
        let seen = self.seen();
        (seen.ports.clone(), seen.markers.clone())
    }

    /// Completes the file, if there is one. An error when not all could be written.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut seen = self.seen();
        if let Some(error) = seen.pcap_failed.take() {
            return Err(error).context("the capture ends early");
        }
        if let Some(pcap) = seen.pcap.take() {
            pcap.finish()?;
        }
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn take(&mut self, datagram: &Captured<'_>) {
        let count = self.ports.entry(datagram.destination.port()).or_default();
        count.datagrams += 1;
        count.octets += datagram.payload.len() as u64;
        for (marker, count) in &mut self.markers {
            *count += u64::from(contains(datagram.payload, marker.as_bytes()));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A disk that is full ends the file, not the steps; `finish` tells.
        if let Some(pcap) = &mut self.pcap
            && let Err(error) = pcap.write(since, datagram)
        {
            (self.pcap, self.pcap_failed) = (None, Some(error));
        }
    }
}

fn contains(text: &[u8], marker: &[u8]) -> bool {
    text.windows(marker.len()).any(|window| window == marker)
}
