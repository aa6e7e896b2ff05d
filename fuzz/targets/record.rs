//! libFuzzer on [`fuzz::targets::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::record(bytes));
