//! Where endpoints are plugged in.

pub mod interface;
pub mod memory;
pub mod tap;

pub use memory::{MemoryPort, PortError};
pub use tap::{Tap, TapConfig};

/// A port as the switch holds it.
#[derive(Debug)]
pub enum Port {
    /// A ring of frames in memory.
    Memory(memory::SwitchSide),
    /// A TAP device.
    Tap(Tap),
}
