//! Desired state: replicated objects, raft, CA, tokens and watches.

pub mod ca;
