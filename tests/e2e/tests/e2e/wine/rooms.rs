//! What only Windows has: data protection, the Event Log, known folders and files that another program holds.

use std::fs;

use towpath_testkit::Wine;

use super::folder_of;

/// Of the tests of `towpath-platform`, those that Wine can run.
const RUN: usize = 5;

#[test]
fn windows_itself_does_what_the_platform_asks_of_it() {
    let (wine, program) = (Wine::new(&[]), "C:\\platform-tests.exe");
    fs::copy(folder_of("platform-tests.exe"), wine.path(program)).expect("cargo xtask test --windows builds it");
    // Wine keeps access control lists as modes of files: what they grant is for a person to look at, on Windows.
    let done = wine.run(&[program, "--skip", "acl::"]).succeeded();
    assert!(done.stdout.contains(&format!("test result: ok. {RUN} passed; 0 failed")), "{}", done.stdout);
}
