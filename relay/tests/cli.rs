//! The command line as files: what is typed, and what is said.

#[test]
fn commands_say_what_their_files_say() {
    // A state folder of the test's own, so that nothing is left behind.
    let state = tempfile::tempdir().unwrap();
    let cases = trycmd::TestCases::new();
    cases.env("TOWPATH_STATE", state.path().to_str().unwrap()).case("tests/cmd/*.trycmd");
}
