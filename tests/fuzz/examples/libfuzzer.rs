//! What libFuzzer drives: one of the targets, named by the environment, so that all of them are built once.
#![no_main]
#![expect(clippy::panic, reason = "without a target there is nothing to do")]

use std::sync::LazyLock;

use libfuzzer_sys::Corpus;
use towpath_fuzz::{TARGET_VARIABLE, Target, target};

static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var(TARGET_VARIABLE).unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("{TARGET_VARIABLE} names no target: {name:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| -> Corpus {
    if data.len() > CHOSEN.most {
        return Corpus::Reject;
    }
    CHOSEN.run(data);
    Corpus::Keep
});
