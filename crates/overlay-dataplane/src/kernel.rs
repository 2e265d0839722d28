//! The dataplane in the Linux kernel.

pub mod nft;
