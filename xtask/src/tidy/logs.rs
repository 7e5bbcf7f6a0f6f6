//! Rule over log lines: one that tells of a failure says by its code which page helps.

use super::{
    Finding,
    tree::{File, Tree, words},
};

/// The macros whose lines an operator is to act on.
const MACROS: &[&str] = &["tracing::error!(", "tracing::warn!("];
/// The longest call that is looked at, in lines.
const MAX_LINES: usize = 20;

/// Rule `codes`: whoever logs a failure gives its code in the field `code`.
pub(crate) fn codes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (line, call) in calls(file) {
            let tells = words(&call, "failure").next().is_some() || call.contains(".report()");
            if tells && words(&call, "code").next().is_none() {
                let advice = "this tells of a failure: give its code, as `code = %failure.code()`";
                findings.push(Finding::new(&file.path, line, "codes", advice));
            }
        }
    }
    findings
}

/// The calls of the macros, each with its first line.
fn calls(file: &File) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = file.product_code().collect();
    let mut found = Vec::new();
    for (index, (number, code)) in lines.iter().enumerate() {
        for name in MACROS {
            let Some((_, begun)) = code.split_once(name) else { continue };
            let rest = lines.iter().skip(index + 1).take(MAX_LINES).map(|(_, code)| *code);
            found.push((*number, until_closed(std::iter::once(begun).chain(rest))));
        }
    }
    found
}

/// Everything up to the bracket that closes what is open already.
fn until_closed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let (mut text, mut open) = (String::new(), 1usize);
    for line in lines {
        for c in line.chars() {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return text;
            }
            text.push(c);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        codes(&Tree::of(&[("a/src/a.rs", text)])).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_failure_that_is_logged_has_its_code() {
        assert_eq!(found("fn x() {\n    tracing::warn!(error = %failure.report(), \"x\");\n}\n"), [2]);
        assert_eq!(found("tracing::error!(\n    job,\n    \"x: {}\", failure.report()\n);\nlet code = 1;\n"), [1]);
        assert!(found("tracing::error!(\n    code = %failure.code(),\n    \"x\"\n);\n").is_empty());
        assert!(found("tracing::warn!(%code, \"{}\", failure.report());\n").is_empty());
        assert!(found("tracing::warn!(\"a failure\"); let f = failure.report();\n").is_empty());
        assert!(found("tracing::info!(error = %failure.report(), \"x\");\n").is_empty());
    }
}
