//! Names that are asked for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::dns_name(bytes);
});
