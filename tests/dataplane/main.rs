//! Dataplanes on real sockets: user switches with each other and with a VXLAN device of the kernel,
//! and the kernel dataplane with itself and with user switches.
//!
//! ```text
//!  endpoint ns ── tap ── user switch ── veth ═══ veth ── kernel VXLAN device
//!   10.0.1.11            192.0.2.1                192.0.2.2      10.0.1.21
//! ```

mod capture;
mod esp_peer;
mod forged;
mod hostile;
mod kernel;
mod kernel_vxlan;
mod past_bridge;
mod probe;
mod rotation;
