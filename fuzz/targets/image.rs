//! libFuzzer on [`fuzz::targets::image`], with changes that know what they change beside its own.
#![no_main]

use fuzz::anatomy::Anatomy;
use fuzz::mutation::Change;
use fuzz::targets::in_memory;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::targets::image(bytes));

libfuzzer_sys::fuzz_mutator!(
    |bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
        if seed.is_multiple_of(3) {
            return libfuzzer_sys::fuzzer_mutate(bytes, size, max_size);
        }
        let file = in_memory(&bytes[..size]);
        Change::number(u64::from(seed), &Anatomy::of(&file), &file).apply_to(bytes, size)
    }
);
