//! The files a rule sees.

use std::collections::BTreeMap;

use super::mask::{Masked, mask};

/// Paths from the root, with `/` between names, and what is in them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

/// A file of the tree.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root.
    pub(crate) path: String,
    /// Empty where the file is no UTF-8 text.
    pub(crate) text: String,
    masked: Masked,
    /// The first line (from 1) of the tests that close a Rust file; one past its end where it has none.
    tests_from: usize,
}

impl Tree {
    pub(crate) fn add(&mut self, path: String, bytes: Vec<u8>) {
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).unwrap_or_default();
        let masked = if path.ends_with(".rs") { mask(&text) } else { Masked::default() };
        let tests_from = if is_test_path(&path) { 1 } else { tests_from(&masked.code) };
        self.files.insert(path.clone(), File { path, text, masked, tests_from });
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add((*path).to_owned(), text.as_bytes().to_vec());
        }
        tree
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Whether a file or a folder has this path; the root has the empty path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(next, _)| next.starts_with(&folder))
    }

    /// Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.path.ends_with(".rs"))
    }
}

impl File {
    /// Lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.text)
    }

    /// Lines of Rust code without comments and literals.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.masked.code)
    }

    /// The same, without the tests.
    pub(crate) fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(line, _)| *line < self.tests_from)
    }

    /// Comments of Rust code.
    pub(crate) fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.masked.comments)
    }

    /// How many lines stand before the tests.
    pub(crate) fn product_lines(&self) -> usize {
        self.lines().count().min(self.tests_from - 1)
    }

    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    pub(crate) fn has_extension(&self, extensions: &[&str]) -> bool {
        self.name().rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    /// Whether the path is one of these, or lies below one of them that ends with `/`.
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Files that are tests from their first line.
fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// Tests close a file: from `#[cfg(test)]` before a `mod` with a body, at the left margin, to the end.
fn tests_from(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().collect();
    for (line, text) in numbered(code) {
        if *text != *"#[cfg(test)]" {
            continue;
        }
        let next = lines.iter().skip(line).find(|next| !next.trim().is_empty() && !next.starts_with("#["));
        if next.is_some_and(|next| next.contains("mod ") && next.trim_end().ends_with('{')) {
            return line;
        }
    }
    lines.len() + 1
}

/// Byte positions where `word` stands for itself, not inside a longer identifier.
pub(crate) fn words<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let (before, after) = line.split_at(*at);
        !before.ends_with(joins) && !after.strip_prefix(word).is_some_and(|rest| rest.starts_with(joins))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_begin_at_the_module_that_closes_the_file() {
        let text = "#[cfg(test)]\nmod tests;\n\nfn a() {}\n\n#[cfg(test)]\n#[expect(x)]\nmod more {\n}\n";
        let tree = Tree::of(&[("a/src/x.rs", text), ("a/src/y.rs", "fn y() {}\n"), ("tests/e2e/src/z.rs", "fn z() {}\n")]);
        assert_eq!(tree.get("a/src/x.rs").unwrap().product_lines(), 5);
        assert_eq!(tree.get("a/src/y.rs").unwrap().product_lines(), 1);
        assert_eq!(tree.get("tests/e2e/src/z.rs").unwrap().product_lines(), 0);
        assert_eq!(tree.get("a/src/x.rs").unwrap().product_code().last(), Some((5, "")));
    }

    #[test]
    fn a_cfg_test_inside_a_string_does_not_open_tests() {
        let tree = Tree::of(&[("a/src/x.rs", "const A: &str = \"\n#[cfg(test)]\nmod t {\n\";\nfn b() {}\n")]);
        assert_eq!(tree.get("a/src/x.rs").unwrap().product_lines(), 5);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("rsa::x ursa::y rsa2::z (rsa)", "rsa").collect::<Vec<_>>(), [0, 24]);
    }

    #[test]
    fn folders_exist_by_what_is_in_them() {
        let tree = Tree::of(&[("docs/adr/0001.md", ""), ("docs.md", "")]);
        assert!(tree.has("docs") && tree.has("docs/adr") && tree.has("docs/adr/0001.md") && tree.has(""));
        assert!(!tree.has("doc") && !tree.has("docs/adr/0001"));
    }

    #[test]
    fn bytes_that_are_no_text_have_no_lines() {
        let mut tree = Tree::default();
        tree.add("a.rs".into(), vec![0xff, 0xfe, b'\n']);
        assert_eq!(tree.get("a.rs").unwrap().lines().count(), 0);
    }

    #[test]
    fn places_are_files_or_folders() {
        let tree = Tree::of(&[("relay/src/registry/sql.rs", "")]);
        let file = tree.get("relay/src/registry/sql.rs").unwrap();
        assert!(file.is_in(&["relay/src/registry/"]) && !file.is_in(&["relay/src/registry"]) && !file.is_in(&["relay/src/reg/"]));
    }
}
