//! What a newer release writes, as this one reads it: the protocol of this release, and one more
//! field in every message and one more kind in every `oneof`.

mod commands;
mod newer;
mod views;
