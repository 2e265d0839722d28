//! Gossip in virtual time: a seed decides everything, and a failing test prints it.

mod cluster;
mod keys;
mod machine;

mod bad_input;
mod death;
mod forming;
mod moving;
mod partition;
mod removal;
mod rotation;
