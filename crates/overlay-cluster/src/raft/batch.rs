//! Commands that share a log entry.
//!
//! ```text
//!   callers ──► Packed, each with its bytes ──► Batch ──► log, disks of all managers, apply
//! ```

use std::sync::Arc;

use bytes::Bytes;
use overlay_api::internal::v1 as wire;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::state::{
    Command,
    wire::{WireError, decode_command, exact},
};

/// Commands that were proposed together: one entry of the log. Clones share the commands, and the
/// bytes that every disk and follower gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Command>", into = "Vec<Command>")]
pub struct Batch {
    commands: Arc<[Arc<Command>]>,
    /// `Commands`.
    encoded: Bytes,
}

/// A command, and `Commands` with it alone. Whoever proposes it encodes it, so that what gathers
/// commands only has to copy bytes: messages one after the other are one with the fields of all.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    command: Arc<Command>,
    encoded: Vec<u8>,
}

/// `Commands`, each left as it is: one after the other needs less memory at a time.
#[derive(Clone, PartialEq, Eq, Message)]
struct Bare {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    commands: Vec<Bytes>,
}

impl Packed {
    pub(crate) fn new(command: Arc<Command>) -> Self {
        let message = wire::Commands { commands: vec![(&*command).into()] };
        Self { command, encoded: message.encode_to_vec() }
    }

    /// Bytes that it adds to a batch.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len()
    }
}

impl Batch {
    /// These commands, in this order.
    pub(crate) fn new(packed: impl IntoIterator<Item = Packed>) -> Self {
        let mut encoded = Vec::new();
        let take = |packed: Packed| {
            encoded.extend_from_slice(&packed.encoded);
            packed.command
        };
        let commands = packed.into_iter().map(take).collect();
        Self { commands, encoded: encoded.into() }
    }

    /// The commands, in the order in which they are applied.
    pub fn commands(&self) -> &[Arc<Command>] {
        &self.commands
    }

    /// The batch as it is stored and sent.
    pub(crate) const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The batch that these bytes are, if this version knows all of it.
    pub(crate) fn decode(encoded: Bytes) -> Result<Self, WireError> {
        let message = exact::<Bare>("commands", encoded.clone())?;
        let command = |bytes| decode_command(bytes).map(Arc::new);
        let commands = message.commands.into_iter().map(command);
        Ok(Self { commands: commands.collect::<Result<_, _>>()?, encoded })
    }
}

impl From<Vec<Command>> for Batch {
    fn from(commands: Vec<Command>) -> Self {
        Self::new(commands.into_iter().map(Arc::new).map(Packed::new))
    }
}

impl From<Batch> for Vec<Command> {
    fn from(batch: Batch) -> Self {
        batch.commands.iter().map(|command| Command::clone(command)).collect()
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{RequestId, UnixMillis};

    use super::*;
    use crate::state::{Action, Kind, Wanted};

    fn command(number: u128) -> Arc<Command> {
        let wanted = Wanted::new(Kind::Network, format!("net{number}")).unwrap();
        let action = Action::RemoveNetwork(wanted);
        Arc::new(Command { request: RequestId::from_u128(number), at: UnixMillis(7), action })
    }

    #[test]
    fn r02_commands_come_back_in_their_order() {
        let batch = Batch::new((1..4).map(command).map(Packed::new));
        let commands: Vec<_> = (1..4).map(command).collect();
        assert_eq!(batch.commands(), commands);
        assert_eq!(Batch::decode(batch.encoded().clone()).unwrap(), batch);
        assert_eq!(Batch::from(Vec::<Command>::from(batch.clone())), batch);
    }

    #[test]
    fn r05_what_is_no_batch_is_refused() {
        assert!(Batch::decode(Bytes::from_static(b"\x0a\xff")).is_err());
        // A command without an action.
        assert!(Batch::decode(Bytes::from_static(b"\x0a\x00")).is_err());
    }
}
