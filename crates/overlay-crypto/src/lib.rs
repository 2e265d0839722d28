//! Everything between a key and a sealed packet: agreement, ESP, key rings, rotation.
//!
//! Owns the keys of the data path and of gossip while they live, the formats they seal, and the
//! order in which they come and go; and the form in which files are sealed. Opens no socket or file,
//! reads no clock, draws no randomness: time and entropy are arguments. Knows nothing about VXLAN,
//! networks or membership.
//!
//! ```text
//!  epochs, public keys           payload [UDP │ VXLAN │ frame]
//!  (replicated state)                 │            ▲
//!        │                            ▼            │
//!        ▼           UseForSending   OutboundSa    SaTable ─► InboundSa ─► ReplayWindow
//!     Rotation ────► InstallInbound ───┘ │            ▲
//!        │           Remove …            ▼            │
//!        ▼                               UDP port 4500
//!   agreement ─► SaKeys
//!
//!  gossip keys ─► GossipKeyRing: message ─► datagram ─► message
//! ```
//!
//! - [`aead`]: AES-256-GCM behind a trait, on `ring` and in pure Rust
//! - [`agreement`]: X25519 and HKDF, keys of a pair of nodes
//! - [`esp`]: the packet format, associations, the table of them
//! - [`at_rest`]: what a node keeps on its disk
//! - [`replay`]: the window of accepted packet numbers
//! - [`keyring`]: sealing of gossip
//! - [`rotation`]: the state machine that replaces keys without losing a packet
//! - [`error`]: the error of calls; packets have reasons and counters instead

pub mod aead;
pub mod agreement;
pub mod at_rest;
pub mod error;
pub mod esp;
pub mod keyring;
pub mod replay;
pub mod rotation;

pub use error::CryptoError;
