//! VXLAN dataplanes behind one trait, and the user-space one.
