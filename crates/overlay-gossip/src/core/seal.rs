//! Sealing under the gossip key ring.
//!
//! ```text
//! version 1 | epoch 8 | sender 16 | incarnation 8 | counter 8 | ciphertext | tag 16
//! ```
//!
//! Per epoch, sender and incarnation a subkey by HKDF-SHA-256; the counter is the nonce.

use std::collections::BTreeMap;

use overlay_types::{Epoch, Incarnation, NodeId};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};

use crate::{config::MAX_MEMBERS, counters::DropReason, identity::Identity};

const HEADER: usize = 1 + 8 + 16 + 8 + 8;
const TAG: usize = 16;
const VERSION: u8 = 1;
const WINDOW: u64 = 1024;

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = HEADER + TAG;

/// One key of the ring.
#[derive(Clone)]
pub struct KeySlot {
    /// Number of the key.
    pub epoch: Epoch,
    /// The key.
    pub key: [u8; 32],
}

/// The key ring.
#[derive(Clone)]
pub struct GossipKeys {
    /// Accepted, not used for sending yet.
    pub next: Option<KeySlot>,
    /// Used for sending.
    pub current: KeySlot,
    /// Still accepted.
    pub previous: Option<KeySlot>,
}

/// Who sealed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

pub(crate) struct Sealer {
    me: Sender,
    keys: GossipKeys,
    counter: u64,
    windows: BTreeMap<NodeId, Window>,
}

struct Window {
    incarnation: Incarnation,
    top: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Sealer {
    pub(crate) fn new(me: &Identity, keys: GossipKeys) -> Self {
        let me = Sender { node: me.node, incarnation: me.incarnation };
        Self { me, keys, counter: 0, windows: BTreeMap::new() }
    }

    pub(crate) fn set_keys(&mut self, keys: GossipKeys) {
        self.keys = keys;
    }

    pub(crate) fn seal(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.counter = self.counter.checked_add(1)?;
        let slot = &self.keys.current;
        let mut out = Vec::with_capacity(message.len() + OVERHEAD);
        out.push(VERSION);
        out.extend_from_slice(&slot.epoch.get().to_be_bytes());
        out.extend_from_slice(&self.me.node.to_bytes());
        out.extend_from_slice(&self.me.incarnation.get().to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        let mut body = message.to_vec();
        let aad = Aad::from(out.clone());
        subkey(slot, self.me).seal_in_place_append_tag(nonce(self.counter), aad, &mut body).ok()?;
        out.extend_from_slice(&body);
        Some(out)
    }

    pub(crate) fn open(&mut self, bytes: &[u8]) -> Result<(Sender, Vec<u8>), DropReason> {
        if bytes.len() < OVERHEAD {
            return Err(DropReason::Truncated);
        }
        let (header, body) = bytes.split_at(HEADER);
        if header[0] != VERSION {
            return Err(DropReason::UnknownVersion);
        }
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap());
        let epoch = Epoch::new(number(1));
        let sender = Sender {
            node: NodeId::from_bytes(header[9..25].try_into().unwrap()),
            incarnation: Incarnation::new(number(25)),
        };
        let counter = number(33);
        let slots = [&self.keys.next, &self.keys.previous].into_iter().flatten();
        let slot = slots
            .chain([&self.keys.current])
            .find(|slot| slot.epoch == epoch)
            .ok_or(DropReason::UnknownEpoch)?;
        let mut body = body.to_vec();
        let length = subkey(slot, sender)
            .open_in_place(nonce(counter), Aad::from(header), &mut body)
            .map_err(|_| DropReason::Unauthentic)?
            .len();
        body.truncate(length);
        self.check_replay(sender, counter)?;
        Ok((sender, body))
    }

    fn check_replay(&mut self, sender: Sender, counter: u64) -> Result<(), DropReason> {
        if !self.windows.contains_key(&sender.node) && self.windows.len() >= MAX_MEMBERS {
            return Err(DropReason::SenderTableFull);
        }
        let fresh = || Window { incarnation: sender.incarnation, top: 0, seen: [0; 16] };
        let window = self.windows.entry(sender.node).or_insert_with(fresh);
        if sender.incarnation < window.incarnation {
            return Err(DropReason::Replayed);
        }
        if sender.incarnation > window.incarnation {
            *window = fresh();
        }
        if counter > window.top {
            for passed in (window.top + 1..=counter).take(WINDOW as usize) {
                window.clear(passed);
            }
            if counter - window.top >= WINDOW {
                window.seen = [0; 16];
            }
            window.top = counter;
        } else if window.top - counter >= WINDOW || window.is_set(counter) {
            return Err(DropReason::Replayed);
        }
        window.set(counter);
        Ok(())
    }
}

impl Window {
    fn set(&mut self, n: u64) {
        self.seen[(n % WINDOW / 64) as usize] |= 1 << (n % 64);
    }
    fn clear(&mut self, n: u64) {
        self.seen[(n % WINDOW / 64) as usize] &= !(1 << (n % 64));
    }
    fn is_set(&self, n: u64) -> bool {
        self.seen[(n % WINDOW / 64) as usize] & (1 << (n % 64)) != 0
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn subkey(slot: &KeySlot, sender: Sender) -> LessSafeKey {
    let node = sender.node.to_bytes();
    let incarnation = sender.incarnation.get().to_be_bytes();
    let epoch = slot.epoch.get().to_be_bytes();
    let info = [b"overlay gossip".as_slice(), &epoch, &node, &incarnation];
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(&slot.key)
        .expand(&info, &AES_256_GCM)
        .map(UnboundKey::from);
    LessSafeKey::new(key.expect("32 bytes are within HKDF's limit"))
}
