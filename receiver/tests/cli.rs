//! The command line, as files: a command and what it says.

#[test]
fn commands_say_what_the_files_say() {
    trycmd::TestCases::new().case("tests/cmd/*.toml");
}
