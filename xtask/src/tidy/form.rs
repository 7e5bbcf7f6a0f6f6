//! Rules over the form of files: none too long to read in one sitting, none with stray white space.

use super::{Finding, tree::File, tree::Tree};

/// Lines of a Rust file before its tests.
const MAX_PRODUCT_LINES: usize = 400;
/// Lines of a Rust file with its tests.
const MAX_LINES: usize = 900;
/// Lines of a `main.rs`, or of a program in `src/bin`: parse, load, call one function, map the error.
const MAX_MAIN_LINES: usize = 60;

/// What people write by hand. Fixtures of other kinds keep the bytes they need.
const WRITTEN: &[&str] = &["rs", "toml", "md", "sh", "py", "sql", "html", "css", "js", "yml", "yaml", "service", "wxs"];

/// Rule `length`: a file is read in one sitting.
pub(crate) fn length(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let all = file.lines().count();
        let product = file.product_lines();
        let is_main = file.name() == "main.rs" || file.path.contains("/src/bin/");
        if is_main && all > MAX_MAIN_LINES {
            let advice = format!("{all} lines; a main has {MAX_MAIN_LINES} at most: move code into the library");
            findings.push(Finding::new(&file.path, MAX_MAIN_LINES + 1, "length", advice));
        } else if product > MAX_PRODUCT_LINES {
            let advice = format!("{product} lines before the tests; {MAX_PRODUCT_LINES} at most: split the module");
            findings.push(Finding::new(&file.path, MAX_PRODUCT_LINES + 1, "length", advice));
        } else if all > MAX_LINES {
            let advice = format!("{all} lines; {MAX_LINES} at most: move tests into a file of their own");
            findings.push(Finding::new(&file.path, MAX_LINES + 1, "length", advice));
        }
    }
    findings
}

/// Rule `space`: no white space at the end of a line, no tab in Rust, one line break at the end of a file.
pub(crate) fn whitespace(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().filter(|file| is_written(file)) {
        for (line, text) in file.text.split('\n').zip(1..).map(|(text, line)| (line, text)) {
            if text.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::new(&file.path, line, "space", "remove the white space at the end of the line"));
            }
        }
        let last = file.lines().count();
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.push(Finding::new(&file.path, last, "space", "end the file with a line break"));
        } else if file.text.ends_with("\n\n") {
            findings.push(Finding::new(&file.path, last, "space", "remove the empty lines at the end"));
        }
    }
    findings
}

fn is_written(file: &File) -> bool {
    file.has_extension(WRITTEN) || file.path == ".ci/run" || file.path == ".gitignore"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        "fn x() {}\n".repeat(count)
    }

    fn found(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn files_are_short_enough() {
        assert!(found(length, "a/src/a.rs", &lines(MAX_PRODUCT_LINES)).is_empty());
        assert_eq!(found(length, "a/src/a.rs", &lines(MAX_PRODUCT_LINES + 1)), [MAX_PRODUCT_LINES + 1]);
        assert!(found(length, "a/src/main.rs", &lines(MAX_MAIN_LINES)).is_empty());
        assert_eq!(found(length, "a/src/main.rs", &lines(MAX_MAIN_LINES + 1)), [MAX_MAIN_LINES + 1]);
        assert_eq!(found(length, "a/src/bin/a.rs", &lines(MAX_MAIN_LINES + 1)), [MAX_MAIN_LINES + 1]);
        assert!(found(length, "docs/long.md", &lines(MAX_LINES + 1)).is_empty());
    }

    #[test]
    fn tests_count_in_the_whole_only() {
        let with_tests = |count| format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(MAX_PRODUCT_LINES), lines(count));
        let fits = MAX_LINES - MAX_PRODUCT_LINES - 3;
        assert!(found(length, "a/src/a.rs", &with_tests(fits)).is_empty());
        assert_eq!(found(length, "a/src/a.rs", &with_tests(fits + 1)), [MAX_LINES + 1]);
        assert!(found(length, "tests/e2e/tests/flow.rs", &lines(MAX_LINES)).is_empty());
    }

    #[test]
    fn white_space_is_neither_trailing_nor_missing() {
        assert_eq!(found(whitespace, "a.md", "a \nb\t\nc\r\nd"), [1, 2, 3, 4]);
        assert_eq!(found(whitespace, "a.toml", "a\n\n"), [2]);
        assert!(found(whitespace, "a.rs", "a\n").is_empty() && found(whitespace, "empty.rs", "").is_empty());
        assert!(found(whitespace, "fixtures/a.csv", "a \r\nb").is_empty());
    }
}
