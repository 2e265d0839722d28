//! Text in the grammars of ports, subnets, names, numbers and networks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::specs(bytes);
});
