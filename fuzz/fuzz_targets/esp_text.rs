//! Texts that somebody with the keys sealed in ESP.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overlay_fuzz::entry::esp_text(bytes);
});
