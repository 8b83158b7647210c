#![no_main]

use libfuzzer_sys::fuzz_target;
use mef3_server_fuzz::mef::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::session(input));
