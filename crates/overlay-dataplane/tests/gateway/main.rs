//! The gateway on a real kernel: containers' way out and their published ports, in namespaces that
//! the tests make.

mod others;
mod published;
mod repair;
mod site;
mod way_out;
