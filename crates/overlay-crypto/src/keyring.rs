//! Sealing of gossip: a ring of three shared keys, and below each a key per sender.
//!
//! ```text
//!  ring key of an epoch ── HKDF: sender, incarnation ──► subkey; nonce = counter of the sender
//!
//!  0         1       9        25            33        41            n-16    n
//!  │ version │ epoch │ sender │ incarnation │ counter │ ciphertext  │  tag  │
//!  └──────────────── authenticated ────────────────────┘
//!
//!            next ──────► current ──────► previous ──────► erased
//!         opened only   sealed and opened  opened only
//! ```
//!
//! A subkey belongs to one sender in one incarnation and its counter never goes back, so no nonce
//! repeats, provided that no node starts twice with one incarnation.

use core::{fmt, ops::Range};
use std::collections::HashMap;

use hkdf::Hkdf;
use overlay_types::{Epoch, Incarnation, NodeId, object::GossipKeys};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    aead::{AeadKey, KEY_LEN, NONCE_LEN, PacketAead, RingAead, TAG_LEN},
    error::CryptoError,
    replay::ReplayWindow,
};

/// Version of the format.
pub const VERSION: u8 = 1;

/// Bytes before the ciphertext: version, key epoch, sender, incarnation, counter.
pub const HEADER_LEN: usize = 1 + 8 + 16 + 8 + 8;

/// Bytes that sealing adds to a message.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Longest message that is sealed: a full exchange of 200 000 members.
pub const MAX_MESSAGE_LEN: usize = 1 << 24;

/// Most senders whose counters are remembered: 5000 nodes and those that they replaced within the
/// life of a key. About 1.2 kB each. More are refused, so that none can be replayed.
pub const MAX_SENDERS: usize = 8192;

const LABEL: &[u8] = b"overlay gossip v1";

/// One key of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    /// Its generation.
    pub epoch: Epoch,
    /// The shared key.
    pub key: AeadKey,
}

/// The keys of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKeys {
    /// Opened with, not sealed with yet: some members may not have it.
    pub next: Option<RingKey>,
    /// Sealed and opened with.
    pub current: RingKey,
    /// Opened with: some members may still seal with it.
    pub previous: Option<RingKey>,
}

impl RingKeys {
    /// The ring as it is replicated; `None` when its current key is not among its keys. The nearest
    /// key on each side of the current one is used.
    pub fn from_replicated(keys: &GossipKeys) -> Option<Self> {
        let ring_key = |key: &overlay_types::object::GossipKey| RingKey {
            epoch: key.epoch,
            key: AeadKey::from_bytes(key.key),
        };
        let all = || keys.keys.iter();
        Some(Self {
            next: all().filter(|k| k.epoch > keys.current).min_by_key(|k| k.epoch).map(ring_key),
            current: all().find(|k| k.epoch == keys.current).map(ring_key)?,
            previous: all()
                .filter(|k| k.epoch < keys.current)
                .max_by_key(|k| k.epoch)
                .map(ring_key),
        })
    }

    fn find(&self, epoch: Epoch) -> Option<&RingKey> {
        [Some(&self.current), self.next.as_ref(), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.epoch == epoch)
    }
}

/// Who sealed a message, and where in the buffer it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// The node.
    pub sender: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Where the message lies.
    pub message: Range<usize>,
}

/// Why bytes are not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsealError {
    /// Shorter than [`OVERHEAD`], or longer than anything that is sealed.
    Length,
    /// Another version of the format.
    UnknownVersion,
    /// Sealed with a key that is not in the ring. When the epoch is newer than all of the ring, this
    /// node missed a rotation and asks its manager; the number is not authenticated.
    UnknownKey(Epoch),
    /// The tag is wrong: forged, damaged, or another cluster.
    BadTag,
    /// The message was opened before, or is too far behind.
    Replayed,
    /// Sealed by an earlier start of the node than one already heard.
    StaleIncarnation,
    /// Sealed by this node: a reflection, or two hosts with one identity.
    Reflected,
    /// [`MAX_SENDERS`] are remembered.
    SenderTableFull,
}

impl fmt::Display for UnsealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Length => "length",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownKey(_) => "unknown_key",
            Self::BadTag => "bad_tag",
            Self::Replayed => "replayed",
            Self::StaleIncarnation => "stale_incarnation",
            Self::Reflected => "reflected",
            Self::SenderTableFull => "sender_table_full",
        })
    }
}

/// Seals for one sender, opens for all.
pub struct GossipKeyRing<A = RingAead> {
    own: (NodeId, Incarnation),
    keys: RingKeys,
    counter: u64,
    sealing: A,
    senders: HashMap<NodeId, Sender<A>>,
}

/// What is remembered about a sender since its tag was first verified.
struct Sender<A> {
    incarnation: Incarnation,
    window: ReplayWindow,
    /// Newest key it was heard with: once that has left the ring, nothing of it can be replayed.
    newest: Epoch,
    /// Its expanded subkey of one epoch; another epoch replaces it.
    subkey: (Epoch, A),
}

impl GossipKeyRing {
    /// A ring that seals for `sender`, whose `incarnation` must be greater than at all its starts
    /// before.
    pub fn new(sender: NodeId, incarnation: Incarnation, keys: RingKeys) -> Self {
        Self::with_aead(sender, incarnation, keys)
    }
}

impl<A: PacketAead> GossipKeyRing<A> {
    /// As [`new`](GossipKeyRing::new), on a given AEAD.
    pub fn with_aead(sender: NodeId, incarnation: Incarnation, keys: RingKeys) -> Self {
        let sealing = subkey(&keys.current, sender, incarnation);
        Self { own: (sender, incarnation), keys, counter: 0, sealing, senders: HashMap::new() }
    }

    /// Replaces the keys after a step of the rotation, and forgets senders that cannot be replayed
    /// any more. The counter goes on.
    pub fn set_keys(&mut self, keys: RingKeys) {
        self.sealing = subkey(&keys.current, self.own.0, self.own.1);
        let valid = |epoch| keys.find(epoch).is_some_and(|key| self.keys.find(epoch) == Some(key));
        self.senders.retain(|_, sender| valid(sender.newest));
        for (node, sender) in &mut self.senders {
            // Never keep a key that has left the ring.
            if let (false, Some(key)) = (valid(sender.subkey.0), keys.find(sender.newest)) {
                sender.subkey = (key.epoch, subkey(key, *node, sender.incarnation));
            }
        }
        self.keys = keys;
    }

    /// The keys in use.
    pub const fn keys(&self) -> &RingKeys {
        &self.keys
    }

    /// Number of senders that are remembered.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// Seals `message` with the current key; the result is [`OVERHEAD`] longer.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] above 16 MiB, [`CryptoError::CounterSpent`] after 2^64 - 1 messages.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(CryptoError::TooLong { length: message.len(), limit: MAX_MESSAGE_LEN });
        }
        let counter = self.counter.checked_add(1).ok_or(CryptoError::CounterSpent)?;
        self.counter = counter;
        let mut bytes = Vec::with_capacity(message.len() + OVERHEAD);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.keys.current.epoch.get().to_be_bytes());
        bytes.extend_from_slice(&self.own.0.to_bytes());
        bytes.extend_from_slice(&self.own.1.get().to_be_bytes());
        bytes.extend_from_slice(&counter.to_be_bytes());
        bytes.extend_from_slice(message);
        let (header, text) = bytes.split_at_mut(HEADER_LEN);
        let tag = self.sealing.seal(nonce(counter), header, text);
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// Opens what another node sealed, in place. Whatever is refused changed nothing here.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Unsealed, UnsealError> {
        if !(OVERHEAD..=OVERHEAD + MAX_MESSAGE_LEN).contains(&bytes.len()) {
            return Err(UnsealError::Length);
        }
        let end = bytes.len() - TAG_LEN;
        let (header, rest) = bytes.split_at_mut(HEADER_LEN);
        let (text, tag) = rest.split_at_mut(end - HEADER_LEN);
        let tag: &[u8; TAG_LEN] = (&*tag).try_into().map_err(|_| UnsealError::Length)?;
        if header[0] != VERSION {
            return Err(UnsealError::UnknownVersion);
        }
        let number = |at: usize| {
            u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|offset: usize| header[at + offset]))
        };
        let (epoch, incarnation) = (Epoch::new(number(1)), Incarnation::new(number(25)));
        let node = u128::from(number(9)) << 64 | u128::from(number(17));
        let (node, counter) = (NodeId::from_u128(node), number(33));
        let key = self.keys.find(epoch).ok_or(UnsealError::UnknownKey(epoch))?;
        if node == self.own.0 {
            return Err(UnsealError::Reflected);
        }

        let known = self.senders.get_mut(&node);
        let same = known.filter(|sender| sender.incarnation == incarnation);
        if let Some(sender) = same {
            sender.window.check(counter).map_err(|_| UnsealError::Replayed)?;
            let fresh = (sender.subkey.0 != epoch).then(|| subkey::<A>(key, node, incarnation));
            let aead = fresh.as_ref().unwrap_or(&sender.subkey.1);
            aead.open(nonce(counter), header, text, tag).map_err(|_| UnsealError::BadTag)?;
            sender.window.accept(counter).map_err(|_| UnsealError::Replayed)?;
            sender.newest = sender.newest.max(epoch);
            if let Some(aead) = fresh {
                sender.subkey = (epoch, aead);
            }
        } else {
            self.refuse_stale(node, incarnation)?;
            let aead = subkey::<A>(key, node, incarnation);
            aead.open(nonce(counter), header, text, tag).map_err(|_| UnsealError::BadTag)?;
            let mut window = ReplayWindow::new();
            window.accept(counter).map_err(|_| UnsealError::Replayed)?;
            let sender = Sender { incarnation, window, newest: epoch, subkey: (epoch, aead) };
            self.senders.insert(node, sender);
        }
        Ok(Unsealed { sender: node, incarnation, message: HEADER_LEN..end })
    }

    fn refuse_stale(&self, node: NodeId, incarnation: Incarnation) -> Result<(), UnsealError> {
        match self.senders.get(&node) {
            Some(known) if known.incarnation > incarnation => Err(UnsealError::StaleIncarnation),
            None if self.senders.len() >= MAX_SENDERS => Err(UnsealError::SenderTableFull),
            _ => Ok(()),
        }
    }
}

fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn subkey<A: PacketAead>(key: &RingKey, sender: NodeId, incarnation: Incarnation) -> A {
    let hkdf = Hkdf::<Sha256>::new(None, key.key.as_bytes());
    let (epoch, incarnation) = (key.epoch.get().to_be_bytes(), incarnation.get().to_be_bytes());
    let info = [LABEL, &epoch, &sender.to_bytes(), &incarnation];
    let mut okm = Zeroizing::new([0; KEY_LEN]);
    hkdf.expand_multi_info(&info, &mut *okm).expect("32 bytes are within HKDF's limit");
    A::new(&AeadKey::from_bytes(*okm))
}

#[cfg(test)]
mod tests;
