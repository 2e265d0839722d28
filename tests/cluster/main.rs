//! Whole nodes in one process, on loopback addresses of their own, with the real ports.

mod lab;

mod attach;
mod garbage;
mod lifecycle;
mod lists;
mod liveness;
mod lock;
mod membership;
mod mesh;
mod metrics;
mod moving;
mod names;
mod network;
mod protocol;
mod recovery;
mod requests;
mod root_rotation;
mod services;
mod skew;
mod update;
mod writes;
mod wrong_fields;
