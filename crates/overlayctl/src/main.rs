//! Command line of an overlay node.
fn main() {}
