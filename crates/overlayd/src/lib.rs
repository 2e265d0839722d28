//! The overlay node as a value, and the daemon.
