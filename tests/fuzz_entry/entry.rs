//! Entry points into the decoders, for `cargo fuzz` and for the deterministic run.
//!
//! Each takes whatever bytes, says whether the decoder accepted them, and panics when an accepted
//! value does not have the properties of its type.

mod dns;
mod esp;
mod gossip;
mod specs;
mod switch;

use std::time::Instant;

pub use dns::{dns_message, dns_name};
pub use esp::{esp, esp_text, seal};
pub use gossip::{conversation, gossip, gossip_message, seal_message};
pub use specs::specs;
pub use switch::{frame, vxlan};

/// Nothing here takes long enough for it to matter.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made of a number")]
fn now() -> Instant {
    Instant::now()
}
