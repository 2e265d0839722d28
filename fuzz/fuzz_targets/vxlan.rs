//! Datagrams from a member to the VXLAN port.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::vxlan(bytes);
});
