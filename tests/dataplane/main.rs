//! The user dataplane on real sockets: between two switches, and against the kernel's VXLAN device.
//!
//! ```text
//!  endpoint ns ── tap ── user switch ── veth ═══ veth ── kernel VXLAN device
//!   10.0.1.11            192.0.2.1                192.0.2.2      10.0.1.21
//! ```

mod capture;
mod esp_peer;
mod kernel_vxlan;
mod probe;
