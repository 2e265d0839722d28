//! Datagrams and stream messages from strangers to the gossip port.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::gossip(bytes);
});
