//! Whole nodes in one process, on loopback addresses of their own, with the real ports.

#[path = "lab.rs"]
mod lab;

mod attach;
mod membership;
mod network;
