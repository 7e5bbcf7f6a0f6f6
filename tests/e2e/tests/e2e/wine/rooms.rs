//! The tests of the rooms that meet Windows itself: what it alone has, files and connections, the journal, programs and
//! logs.

use std::fs;

use towpath_testkit::Wine;

use super::folder_of;

/// A room, the tests of it that cannot run under Wine, and how many run there at least.
type Room = (&'static str, &'static [&'static str], usize);

const ROOMS: [Room; 4] = [
    // Wine keeps access control lists as modes of files, and does not take its name from a file that somebody has open: these are for
    // a person to run, on Windows.
    (
        "towpath-platform",
        &["what_is_restricted_is_private_and_still_ours", "a_file_that_somebody_reads_is_replaced_all_the_same"],
        11,
    ),
    // It asks OpenSSH for its keys, which is not there.
    ("towpath-transport", &["only_plain_ed25519_and_p256_are_host_keys"], 160),
    ("towpath-journal", &[], 35),
    // An open file keeps its name there, as above.
    ("towpath-host", &["a_file_or_folder_that_is_removed_is_made_again"], 50),
];

#[test]
fn windows_rooms_do_what_they_do_elsewhere() {
    let wine = Wine::new(&[]);
    for (room, skipped, least) in ROOMS {
        let program = format!("C:\\{room}-tests.exe");
        let built = folder_of(&format!("{room}-tests.exe"));
        fs::copy(built, wine.path(&program)).expect("cargo xtask test --windows builds it");
        let words: Vec<&str> = [program.as_str()].into_iter().chain(skipped.iter().flat_map(|test| ["--skip", test])).collect();
        let said = wine.run(&words).stdout;
        let result = said.lines().find_map(|line| line.strip_prefix("test result: ")).unwrap_or_default();
        let passed = result.strip_prefix("ok. ").and_then(|rest| rest.split_once(" passed; 0 failed;")?.0.parse::<usize>().ok());
        assert!(passed.is_some_and(|passed| passed >= least), "{room}: {result}\n{said}");
    }
}
