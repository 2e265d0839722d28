//! Frames from a local endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::frame(bytes);
});
