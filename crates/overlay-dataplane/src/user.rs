//! The dataplane in user space: a switch per node.
//!
//! [`engine`] is pure; [`ports`], `sockets` and `runner` are the shell around it.

pub mod capture;
mod dataplane;
pub mod engine;
mod mesh;
pub mod ports;
mod runner;
mod sockets;
mod switch;
mod wake;

pub use dataplane::UserDataplane;
pub use mesh::UserMesh;
pub use sockets::try_raw_socket;
pub use switch::{Switch, SwitchConfig};
