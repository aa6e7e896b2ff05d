//! libFuzzer on [`fuzz::targets::mountinfo`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::mountinfo(bytes));
