//! A port in memory: two bounded rings of frames.
//!
//! ```text
//! MemoryPort::send ──► ring ──► switch          switch ──► ring ──► MemoryPort::recv
//! ```

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::user::wake::Wake;

/// Frames that wait in each direction: about a millisecond of 10 Gbit/s in full frames. A ring
/// that is full drops, as a network card does.
pub const RING_FRAMES: usize = 1024;

/// Why a port takes or gives no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The ring is full; try again later, or drop the frame.
    #[error("the port's ring is full")]
    Full,
    /// The port was removed from the switch.
    #[error("the port was removed from the switch")]
    Removed,
}

/// The endpoint's side of a port. Frames are whole Ethernet frames without check sequence.
#[derive(Debug)]
pub struct MemoryPort {
    sender: MemorySender,
    from_switch: mpsc::Receiver<Vec<u8>>,
}

impl MemoryPort {
    /// Gives a frame to the switch.
    pub fn send(&self, frame: Vec<u8>) -> Result<(), PortError> {
        self.sender.send(frame)
    }

    /// Another way to give frames to the switch.
    pub(crate) fn sender(&self) -> MemorySender {
        self.sender.clone()
    }

    /// Room for frames to the switch.
    pub fn capacity(&self) -> usize {
        self.sender.room()
    }

    /// A frame from the switch, if one waits. An error when the port was removed.
    pub fn try_recv(&mut self) -> Result<Option<Vec<u8>>, PortError> {
        match self.from_switch.try_recv() {
            Ok(frame) => Ok(Some(frame)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(PortError::Removed),
        }
    }

    /// The next frame from the switch; `None` when the port was removed. Can be cancelled.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        self.from_switch.recv().await
    }

    /// Waits for a frame in a thread that is no task's; `None` when the port was removed.
    pub fn blocking_recv(&mut self) -> Option<Vec<u8>> {
        self.from_switch.blocking_recv()
    }
}

/// The way into the switch only.
#[derive(Debug, Clone)]
pub(crate) struct MemorySender {
    to_switch: mpsc::Sender<Vec<u8>>,
    wake: Arc<Wake>,
}

impl MemorySender {
    /// Room for frames.
    pub(crate) fn room(&self) -> usize {
        self.to_switch.capacity()
    }

    /// As [`MemoryPort::send`].
    pub(crate) fn send(&self, frame: Vec<u8>) -> Result<(), PortError> {
        self.to_switch.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PortError::Full,
            mpsc::error::TrySendError::Closed(_) => PortError::Removed,
        })?;
        self.wake.wake();
        Ok(())
    }
}

/// The switch's side of a port.
#[derive(Debug)]
pub struct SwitchSide {
    from_endpoint: mpsc::Receiver<Vec<u8>>,
    to_endpoint: mpsc::Sender<Vec<u8>>,
}

impl SwitchSide {
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.from_endpoint.try_recv().ok()
    }

    /// Whether there was room.
    pub(crate) fn push(&self, frame: &[u8]) -> bool {
        match self.to_endpoint.try_reserve() {
            Ok(slot) => {
                slot.send(frame.to_vec());
                true
            }
            Err(_) => false,
        }
    }
}

/// Both sides of a new port of the switch that `wake` wakes.
pub(crate) fn pair(wake: Arc<Wake>) -> (MemoryPort, SwitchSide) {
    let (to_switch, from_endpoint) = mpsc::channel(RING_FRAMES);
    let (to_endpoint, from_switch) = mpsc::channel(RING_FRAMES);
    let sender = MemorySender { to_switch, wake };
    (MemoryPort { sender, from_switch }, SwitchSide { from_endpoint, to_endpoint })
}
