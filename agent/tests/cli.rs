//! The command line as files: what is typed, and what is said.

#[test]
fn commands_say_what_their_files_say() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
