//! The steps, in order.

pub(crate) mod cluster;
pub(crate) mod networks;
pub(crate) mod wire;
