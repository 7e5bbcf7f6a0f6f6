//! The fences that no compiler holds: who may depend on whom, who may name what, and the form of every file.
//!
//! A rule is a function from a [`Tree`] to [`Finding`]s. It sees the files by path and text and nothing else, so that its
//! tests are small trees in memory.

use std::{fmt, fs, path::Path, process::Command};

use crate::{console::say, repository};

mod errors;
mod form;
mod links;
mod logs;
mod manifests;
mod mask;
mod names;
mod tree;

use tree::Tree;

/// What is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    rule: &'static str,
    advice: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.advice)
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

/// Every rule. Their names, as they stand in findings, are in the module that holds them.
const RULES: &[Rule] = &[
    manifests::edges,
    manifests::crates_by_room,
    manifests::inheritance,
    manifests::reasons,
    names::crates_by_folder,
    names::edge_of_the_process,
    names::blocking_work,
    names::unfinished,
    names::no_allow,
    names::directions,
    names::machine_paths,
    form::length,
    form::whitespace,
    errors::pages,
    links::resolve,
    logs::codes,
];

/// Checks the working tree and prints what it finds. True when there is nothing to say.
pub(crate) fn run() -> Result<bool, String> {
    let root = repository::root()?;
    let tree = read(&root)?;
    let findings = check(&tree);
    for finding in &findings {
        say(&finding.to_string());
    }
    if findings.is_empty() {
        say(&format!("tidy: {} files, {} rules, nothing to mend", tree.files().count(), RULES.len()));
    } else {
        say(&format!("tidy: {} findings", findings.len()));
    }
    Ok(findings.is_empty())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings.dedup();
    findings
}

/// The files that git tracks, and those it would track next: new files are checked before they are committed.
fn read(root: &Path) -> Result<Tree, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("running git ls-files failed: {e}"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr).trim()));
    }
    let mut tree = Tree::default();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        // A file that was deleted but not yet committed is still listed; it is no part of the tree.
        if let Ok(bytes) = fs::read(root.join(&name)) {
            tree.add(name, bytes);
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_like_those_of_a_compiler() {
        let finding = Finding::new("relay/src/main.rs", 61, "length", "move code into a module");
        assert_eq!(finding.to_string(), "relay/src/main.rs:61: length: move code into a module");
    }

    #[test]
    fn an_empty_tree_has_nothing_to_mend_and_findings_come_in_order() {
        assert!(check(&Tree::default()).is_empty());
        let tree = Tree::of(&[("b.rs", "fn b() {} \n"), ("a.rs", "fn a() {}")]);
        let places: Vec<_> = check(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(places, ["a.rs", "b.rs"]);
    }
}
