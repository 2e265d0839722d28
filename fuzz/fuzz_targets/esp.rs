//! Datagrams from strangers to the ESP port.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::esp(bytes);
});
