//! Messages that somebody with the keys sealed for gossip.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::gossip_message(bytes);
});
