//! SPI → association.

use core::{
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};
use std::collections::{
    HashMap,
    hash_map::Entry::{Occupied, Vacant},
};

use overlay_types::Spi;

use super::{Datagram, InboundSa, OpenError, SaId};
use crate::{
    aead::{PacketAead, RingAead},
    error::CryptoError,
};

/// Most receive associations: 5000 peers in four epochs (draining, active, next, and one kept for a
/// peer that was replaced), rounded up. About 1.2 kB each.
pub const MAX_ASSOCIATIONS: usize = 20_480;

/// An authentic packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The association it came through; `peer` is who sealed it.
    pub id: SaId,
    /// Where in the datagram the payload lies: a UDP header and what follows.
    pub payload: Range<usize>,
}

/// The receive associations of a node, and what became of what arrived.
pub struct SaTable<A = RingAead> {
    associations: HashMap<Spi, Entry<A>, BuildHasherDefault<SpiHasher>>,
    /// Associations whose SPI another peer's has too. Expected once in 350 node-epochs of 5000
    /// nodes, so this is nearly always empty.
    twins: Vec<Entry<A>>,
    opened: u64,
    dropped: [u64; OpenError::ALL.len()],
}

struct Entry<A> {
    id: SaId,
    sa: InboundSa<A>,
    heard: bool,
}

impl<A> Default for SaTable<A> {
    fn default() -> Self {
        Self {
            associations: HashMap::default(),
            twins: Vec::new(),
            opened: 0,
            dropped: [0; OpenError::ALL.len()],
        }
    }
}

impl SaTable {
    /// An empty table on the production AEAD.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<A: PacketAead> SaTable<A> {
    /// Adds an association, or leaves the one that has this id: replacing it would forget its replay
    /// window.
    ///
    /// # Errors
    /// [`CryptoError::TableFull`] at [`MAX_ASSOCIATIONS`].
    pub fn insert(&mut self, id: SaId, sa: InboundSa<A>) -> Result<(), CryptoError> {
        if self.contains(id) {
            return Ok(());
        }
        if self.len() >= MAX_ASSOCIATIONS {
            let what = "receive associations";
            return Err(CryptoError::TableFull { what, limit: MAX_ASSOCIATIONS });
        }
        let entry = Entry { id, sa, heard: false };
        match self.associations.entry(id.spi) {
            Occupied(_) => self.twins.push(entry),
            Vacant(place) => _ = place.insert(entry),
        }
        Ok(())
    }

    /// Removes an association; whether it was there.
    pub fn remove(&mut self, id: SaId) -> bool {
        if let Some(at) = self.twins.iter().position(|entry| entry.id == id) {
            self.twins.swap_remove(at);
            return true;
        }
        if self.associations.get(&id.spi).is_none_or(|entry| entry.id != id) {
            return false;
        }
        self.associations.remove(&id.spi);
        if let Some(at) = self.twins.iter().position(|entry| entry.id.spi == id.spi) {
            let twin = self.twins.swap_remove(at);
            self.associations.insert(id.spi, twin);
        }
        true
    }

    /// Whether the association is there.
    pub fn contains(&self, id: SaId) -> bool {
        self.associations.get(&id.spi).is_some_and(|entry| entry.id == id)
            || self.twins.iter().any(|entry| entry.id == id)
    }

    /// An association.
    pub fn get(&self, id: SaId) -> Option<&InboundSa<A>> {
        let first = self.associations.get(&id.spi).into_iter();
        first.chain(&self.twins).find(|entry| entry.id == id).map(|entry| &entry.sa)
    }

    /// Number of associations.
    pub fn len(&self) -> usize {
        self.associations.len() + self.twins.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All associations, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (SaId, &InboundSa<A>)> {
        self.associations.values().chain(&self.twins).map(|entry| (entry.id, &entry.sa))
    }

    /// Associations that have received an authentic packet since the last call. The peer has the
    /// keys, so it can be sent to with them ([`Rotation::handle_heard`]).
    ///
    /// [`Rotation::handle_heard`]: crate::rotation::Rotation::handle_heard
    pub fn newly_heard(&mut self) -> Vec<SaId> {
        let entries = self.associations.values_mut().chain(&mut self.twins);
        entries
            .filter_map(|entry| {
                let newly = entry.sa.packets() > 0 && !entry.heard;
                entry.heard |= newly;
                newly.then_some(entry.id)
            })
            .collect()
    }

    /// Packets that were opened.
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// Datagrams that were not handed on for this reason.
    pub const fn dropped(&self, reason: OpenError) -> u64 {
        self.dropped[reason as usize]
    }

    /// Opens a UDP payload from port 4500 in place, and counts.
    #[inline]
    pub fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let opened = self.find_and_open(datagram);
        match &opened {
            Ok(_) => self.opened += 1,
            Err(reason) => self.dropped[*reason as usize] += 1,
        }
        opened
    }

    /// Opens many; `accept` gets each authentic packet with its bytes. The others are only counted.
    pub fn open_batch<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        mut accept: impl FnMut(Opened, &'a mut [u8]),
    ) {
        for datagram in datagrams {
            if let Ok(opened) = self.open(datagram) {
                accept(opened, datagram);
            }
        }
    }

    #[inline]
    fn find_and_open(&mut self, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let spi = match Datagram::classify(datagram) {
            Datagram::Esp(spi) => spi,
            Datagram::Keepalive => return Err(OpenError::Keepalive),
            Datagram::NonEsp => return Err(OpenError::NonEsp),
            Datagram::Malformed => return Err(OpenError::Malformed),
        };
        if !self.twins.is_empty() && self.twins.iter().any(|twin| twin.id.spi == spi) {
            return self.open_by_trial(spi, datagram);
        }
        let entry = self.associations.get_mut(&spi).ok_or(OpenError::UnknownSpi)?;
        entry.sa.open(datagram).map(|payload| Opened { id: entry.id, payload })
    }

    /// Several associations share the SPI: the one whose tag fits is meant. Opening destroys the
    /// text when it fails, so each tries on the original bytes.
    #[cold]
    fn open_by_trial(&mut self, spi: Spi, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let original = datagram.to_vec();
        let entries = self.associations.get_mut(&spi).into_iter();
        let twins = self.twins.iter_mut().filter(|twin| twin.id.spi == spi);
        let mut reason = OpenError::UnknownSpi;
        for entry in entries.chain(twins) {
            datagram.copy_from_slice(&original);
            match entry.sa.open(datagram) {
                Ok(payload) => return Ok(Opened { id: entry.id, payload }),
                Err(error @ (OpenError::TooOld | OpenError::Replayed | OpenError::BadTag)) => {
                    reason = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(reason)
    }
}

/// SPIs are outputs of HKDF, so spreading their bits over the word is enough, and three times as
/// fast as the default hash.
#[derive(Default)]
struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // 2^64 / golden ratio: Fibonacci hashing.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
