//! What a node keeps on its disk, sealed record by record.
//!
//! ```text
//!   unlock key ─► data key, sealed            (when the cluster is locked; else it lies in clear)
//!   data key ── HKDF, salt of the run ──► subkey of the run ── counter ──► record, at its place
//!
//!   record = salt 16 │ counter 8 │ ciphertext │ tag 16
//! ```
//!
//! Each run of the program seals under a subkey of its own and counts its records, so that no nonce
//! repeats, also when a file is put back from a copy. A record says which run sealed it, and is bound
//! to its place: one that was moved within the file, or into another one, does not open.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead::{AeadKey, KEY_LEN, NONCE_LEN, PacketAead, RingAead, TAG_LEN};

/// Bytes of the salt that tells runs apart. It must be random.
pub const RUN_SALT_LEN: usize = 16;
/// Bytes that a record is longer than its content.
pub const OVERHEAD: usize = RUN_SALT_LEN + COUNTER_LEN + TAG_LEN;

const COUNTER_LEN: usize = 8;
const RECORD_LABEL: &[u8] = b"overlay at rest v1";
const ID_LABEL: &[u8] = b"overlay data key id v1";
const WRAP_PLACE: &[u8] = b"data key";
/// Former runs whose subkeys are kept: a log of 10 000 entries was rarely written by more.
const KEPT_RUNS: usize = 16;

/// The bytes are not what was sealed here: they were changed or cut, belong to another place, or
/// were sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was changed, moved here from elsewhere, or sealed with another key")]
pub struct NotSealedHere;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Zeroized when dropped, compared in constant time, never printed.
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_LEN]);

        impl $name {
            /// The key with these bytes, which must come from a cryptographic random source.
            pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
                Self(bytes)
            }

            /// The bytes. Whoever copies them answers for erasing them.
            pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret! {
    /// The key of a node's own files.
    DataKey
}

secret! {
    /// What opens the data key of each manager of a locked cluster. Its owner keeps it, off the hosts.
    UnlockKey
}

impl DataKey {
    /// Tells this key from others, and nothing about it: for a file that says which key it needs.
    pub fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        let hkdf = Hkdf::<Sha256>::new(None, &self.0);
        hkdf.expand(ID_LABEL, &mut id).expect("8 bytes are within HKDF's limit");
        id
    }

    /// The key, sealed with `unlock`. `salt` must be random.
    pub fn wrap(&self, unlock: &UnlockKey, salt: [u8; RUN_SALT_LEN]) -> Vec<u8> {
        Sealer::with_key(&unlock.0, salt).seal(WRAP_PLACE, &self.0)
    }

    /// What [`wrap`](Self::wrap) sealed with `unlock`.
    pub fn unwrap(unlock: &UnlockKey, wrapped: &[u8]) -> Result<Self, NotSealedHere> {
        let opened = Sealer::with_key(&unlock.0, [0; RUN_SALT_LEN]).open(WRAP_PLACE, wrapped)?;
        let opened = Zeroizing::new(opened);
        opened.as_slice().try_into().map(Self).map_err(|_| NotSealedHere)
    }
}

/// Seals the records of one run, and opens those of all runs.
pub struct Sealer {
    key: Zeroizing<[u8; KEY_LEN]>,
    salt: [u8; RUN_SALT_LEN],
    own: RingAead,
    sealed: AtomicU64,
    former: Mutex<VecDeque<([u8; RUN_SALT_LEN], Arc<RingAead>)>>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Seals with `key`. `salt` must be random, and another one for each run.
    pub fn new(key: &DataKey, salt: [u8; RUN_SALT_LEN]) -> Self {
        Self::with_key(&key.0, salt)
    }

    fn with_key(key: &[u8; KEY_LEN], salt: [u8; RUN_SALT_LEN]) -> Self {
        Self {
            key: Zeroizing::new(*key),
            salt,
            own: subkey(key, salt),
            sealed: AtomicU64::new(0),
            former: Mutex::default(),
        }
    }

    /// `content` as a record for `place`, which names file and position.
    pub fn seal(&self, place: &[u8], content: &[u8]) -> Vec<u8> {
        // 2^64 records are never reached, so the counter does not wrap.
        let counter = self.sealed.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut record = Vec::with_capacity(content.len() + OVERHEAD);
        record.extend_from_slice(&self.salt);
        record.extend_from_slice(&counter);
        record.extend_from_slice(content);
        let text = &mut record[RUN_SALT_LEN + COUNTER_LEN..];
        let tag = self.own.seal(nonce(counter), place, text);
        record.extend_from_slice(&tag);
        record
    }

    /// The content of a record that was sealed for `place`, in this run or another.
    pub fn open(&self, place: &[u8], record: &[u8]) -> Result<Vec<u8>, NotSealedHere> {
        let (salt, rest) = record.split_first_chunk().ok_or(NotSealedHere)?;
        let (counter, rest) = rest.split_first_chunk().ok_or(NotSealedHere)?;
        let (text, tag) = rest.split_last_chunk().ok_or(NotSealedHere)?;
        let mut text = text.to_vec();
        let opened = if *salt == self.salt {
            self.own.open(nonce(*counter), place, &mut text, tag)
        } else {
            self.former(*salt).open(nonce(*counter), place, &mut text, tag)
        };
        opened.map_err(|_| NotSealedHere)?;
        Ok(text)
    }

    /// The subkey of another run.
    fn former(&self, salt: [u8; RUN_SALT_LEN]) -> Arc<RingAead> {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, aead)) = former.iter().find(|(known, _)| *known == salt) {
            return Arc::clone(aead);
        }
        if former.len() == KEPT_RUNS {
            former.pop_front();
        }
        let aead = Arc::new(subkey(&self.key, salt));
        former.push_back((salt, Arc::clone(&aead)));
        aead
    }
}

fn subkey(key: &[u8; KEY_LEN], salt: [u8; RUN_SALT_LEN]) -> RingAead {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let hkdf = Hkdf::<Sha256>::new(Some(&salt), key);
    hkdf.expand(RECORD_LABEL, &mut *bytes).expect("32 bytes are within HKDF's limit");
    RingAead::new(&AeadKey::from_bytes(*bytes))
}

fn nonce(counter: [u8; COUNTER_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - COUNTER_LEN..].copy_from_slice(&counter);
    nonce
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: DataKey = DataKey::from_bytes([7; KEY_LEN]);

    fn run(number: u8) -> Sealer {
        Sealer::new(&KEY, [number; RUN_SALT_LEN])
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_every_run(content: Vec<u8>, place: Vec<u8>) {
            let record = run(1).seal(&place, &content);
            prop_assert_eq!(record.len(), content.len() + OVERHEAD);
            for number in [1, 2] {
                prop_assert_eq!(run(number).open(&place, &record), Ok(content.clone()));
            }
        }

        #[test]
        fn a_changed_or_cut_record_does_not_open(content: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let record = run(1).seal(b"here", &content);
            let mut changed = record.clone();
            *at.get_mut(&mut changed) ^= 1_u8 << bit;
            prop_assert_eq!(run(1).open(b"here", &changed), Err(NotSealedHere));
            prop_assert_eq!(run(1).open(b"here", &record[..at.index(record.len())]), Err(NotSealedHere));
        }
    }

    #[test]
    fn a_record_is_bound_to_its_place_and_key() {
        let record = run(1).seal(b"here", b"content");
        assert_eq!(run(1).open(b"there", &record), Err(NotSealedHere));
        let other = Sealer::new(&DataKey::from_bytes([8; KEY_LEN]), [1; RUN_SALT_LEN]);
        assert_eq!(other.open(b"here", &record), Err(NotSealedHere));
    }

    #[test]
    fn equal_contents_give_different_records() {
        let sealer = run(1);
        let records =
            [sealer.seal(b"p", b"same"), sealer.seal(b"p", b"same"), run(2).seal(b"p", b"same")];
        let texts = records.each_ref().map(|record| &record[RUN_SALT_LEN + COUNTER_LEN..]);
        assert!(texts[0] != texts[1] && texts[0] != texts[2] && texts[1] != texts[2]);
    }

    #[test]
    fn records_of_more_runs_than_are_kept_open() {
        let records: Vec<_> = (0..40).map(|number| run(number).seal(b"p", &[number])).collect();
        let sealer = run(99);
        for _ in 0..2 {
            for (number, record) in (0..).zip(&records) {
                assert_eq!(sealer.open(b"p", record), Ok(vec![number]));
            }
        }
    }

    #[test]
    fn c05_only_the_unlock_key_opens_the_data_key() {
        let [unlock, other] = [1, 2].map(|byte| UnlockKey::from_bytes([byte; KEY_LEN]));
        let wrapped = KEY.wrap(&unlock, [3; RUN_SALT_LEN]);
        assert_eq!(DataKey::unwrap(&unlock, &wrapped), Ok(KEY));
        assert_eq!(DataKey::unwrap(&other, &wrapped), Err(NotSealedHere));
        assert!(!wrapped.windows(8).any(|part| part == &KEY.as_bytes()[..8]));
        assert_ne!(KEY.id(), DataKey::from_bytes([8; KEY_LEN]).id());
    }
}
