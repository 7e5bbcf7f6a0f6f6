//! Commands of a page, as it shows them: in blocks of the language `console`, each after `$ `, with what it prints.

use std::path::{Path, PathBuf};

/// What our own commands begin with.
const OURS: [&str; 3] = ["towpath-agent ", "towpath-relay ", "towpath-receiver "];
/// What others begin with that the pages name.
const OTHERS: [&str; 8] = ["$ ", "cargo ", "systemctl ", "journalctl ", "usermod ", "setfacl ", "mkdir ", "mv "];

/// A command with what the page shows after it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// Where it stands.
    pub(crate) line: usize,
    /// Without its comment.
    pub(crate) command: String,
    /// As it is shown; empty where the page shows nothing.
    pub(crate) output: String,
}

/// A file of the repository.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Every command of a page, in its order.
pub(crate) fn commands(page: &str) -> Vec<Shown> {
    let text = std::fs::read_to_string(path(page)).unwrap();
    let mut found: Vec<Shown> = Vec::new();
    // The language of the block, and whether a command goes on in the next line.
    let (mut block, mut goes_on) = (None, false);
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(language) = text.strip_prefix("```") {
            (block, goes_on) = (if block.is_none() { Some(language) } else { None }, false);
            continue;
        }
        match block {
            Some("console") if goes_on => {
                let shown = found.last_mut().unwrap();
                shown.command = format!("{} {}", shown.command.trim_end_matches('\\').trim(), without_comment(text));
                goes_on = shown.command.ends_with('\\');
            }
            Some("console") => {
                if let Some(command) = text.strip_prefix("$ ") {
                    let command = without_comment(command).to_owned();
                    goes_on = command.ends_with('\\');
                    found.push(Shown { line, command, output: String::new() });
                } else {
                    let shown = found.last_mut().unwrap_or_else(|| panic!("{page}:{line}: an output without a command"));
                    shown.output.push_str(text);
                    shown.output.push('\n');
                }
            }
            // Scripts for other programs are run by the tests of interoperation, as they stand there.
            Some("sh") | None => {}
            Some(_) => {
                let is_command = OURS.iter().chain(&OTHERS).any(|command| text.starts_with(command));
                assert!(!is_command, "{page}:{line}: a command stands in a block of the language `console`, after `$ `");
            }
        }
    }
    found
}

/// Every command of ours that a page names, in its text and in its blocks, with its line.
pub(super) fn named(page: &str) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(path(page)).unwrap();
    let mut found = Vec::new();
    let mut in_block = false;
    for (line, text) in (1..).zip(text.lines()) {
        if text.starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let pieces: Vec<&str> =
            if in_block { vec![text.strip_prefix("$ ").unwrap_or(text)] } else { text.split('`').skip(1).step_by(2).collect() };
        let ours = pieces.into_iter().filter(|piece| OURS.iter().any(|command| piece.starts_with(command)));
        found.extend(ours.map(|piece| (line, without_comment(piece).to_owned())));
    }
    found
}

/// The pages: the README, and every page of the documentation.
pub(super) fn all() -> Vec<String> {
    let root = path("");
    let (mut pages, mut folders) = (vec!["README.md".to_owned()], vec![root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    pages
}

fn without_comment(command: &str) -> &str {
    command.split_once("  #").map_or(command, |(command, _)| command).trim()
}
