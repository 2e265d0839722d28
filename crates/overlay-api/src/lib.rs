//! The overlay.v1 protocol: messages, conversions and client.
