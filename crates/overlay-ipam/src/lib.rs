//! Address pools, subnets and allocation for overlay networks.
