//! Whatever a journal holds, it is read or refused, and what is read leads nowhere out of its run: `cargo +nightly
//! fuzz run journal fuzz/corpus/journal fuzz/seeds/journal`. The same property runs with the ordinary tests of
//! `vmtest`, as a proptest.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| vmtest::fuzzing::journal(bytes));
