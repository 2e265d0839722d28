//! Records: what stands in the file, each sealed for its place.

use overlay_crypto::at_rest::{DataKey, Sealer};
use overlay_types::SpecError;
use prost::Message;

use crate::raft::codec::Malformed;

/// Where a record stands. One that was moved elsewhere does not open.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// A name in the table `meta`.
    Meta(&'static str),
    /// A segment of a store's log, and an offset in it.
    Frame { store: [u8; 16], segment: u64, offset: u64 },
    /// A snapshot's generation, and the number of the piece.
    Piece(u64, u32),
}

impl Place {
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Meta(name) => [b"meta ", name.as_bytes()].concat(),
            Self::Frame { store, segment, offset } => {
                [&b"log "[..], &store, &segment.to_be_bytes(), &offset.to_be_bytes()].concat()
            }
            Self::Piece(generation, number) => {
                [&b"snapshot "[..], &generation.to_be_bytes(), &number.to_be_bytes()].concat()
            }
        }
    }
}

/// Seals and opens the records of a file.
#[derive(Debug)]
pub(super) struct Records(Sealer);

impl Records {
    pub(super) fn new(key: &DataKey) -> Self {
        Self(Sealer::new(key, rand::random()))
    }

    pub(super) fn seal(&self, place: Place, content: &[u8]) -> Vec<u8> {
        self.0.seal(&place.to_bytes(), content)
    }

    pub(super) fn seal_message(&self, place: Place, message: &impl Message) -> Vec<u8> {
        self.seal(place, &message.encode_to_vec())
    }

    pub(super) fn open(&self, place: Place, record: &[u8]) -> Result<Vec<u8>, Malformed> {
        let opened = self.0.open(&place.to_bytes(), record);
        opened.map_err(|error| SpecError::new("record", "", error.to_string()))
    }

    pub(super) fn open_message<M: Message + Default>(
        &self,
        place: Place,
        record: &[u8],
    ) -> Result<M, Malformed> {
        decode(&self.open(place, record)?)
    }
}

/// A message in clear, after its CRC-32C: what has to be read before there is a key.
pub(super) fn with_checksum(message: &impl Message) -> Vec<u8> {
    let content = message.encode_to_vec();
    [&crc32c::crc32c(&content).to_be_bytes()[..], &content].concat()
}

/// What [`with_checksum`] wrote.
pub(super) fn checked_message<M: Message + Default>(record: &[u8]) -> Result<M, Malformed> {
    match record.split_first_chunk() {
        Some((sum, content)) if u32::from_be_bytes(*sum) == crc32c::crc32c(content) => {
            decode(content)
        }
        _ => Err(SpecError::new("checksum", "", "it is not that of the content")),
    }
}

fn decode<M: Message + Default>(content: &[u8]) -> Result<M, Malformed> {
    M::decode(content)
        .map_err(|error| SpecError::new("record", "", format!("it cannot be decoded: {error}")))
}
