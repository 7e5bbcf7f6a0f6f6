//! Rule `links`: links between the project's own pages lead somewhere.

use super::{
    Finding,
    tree::{File, Tree},
};

/// Rule `links`: the file or folder exists and, in a page, the heading too.
pub(crate) fn resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in tree.files().filter(|file| file.path.ends_with(".md")) {
        for (line, text) in written(page) {
            for target in targets(&text) {
                if let Some(advice) = broken(tree, page, target) {
                    findings.push(Finding::new(&page.path, line, "links", advice));
                }
            }
        }
    }
    findings
}

/// The lines outside fenced blocks, without `code` spans.
fn written(page: &File) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (line, text) in page.lines() {
        if text.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((line, text.split('`').step_by(2).collect()));
        }
    }
    lines
}

/// What `[text](target "title")` and `[name]: target` lead to.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    inline.chain(reference).filter_map(|target| target.split_whitespace().next()).collect()
}

fn broken(tree: &Tree, page: &File, target: &str) -> Option<String> {
    let target = target.trim_start_matches('<').trim_end_matches('>');
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let Some(path) = (if path.is_empty() { Some(page.path.clone()) } else { join(&page.path, path) }) else {
        return Some(format!("{target} leads out of the repository"));
    };
    if !tree.has(&path) {
        return Some(format!("{target} leads nowhere: there is no {path}"));
    }
    let (heading, page) = (heading?, tree.get(&path)?);
    let known = !path.ends_with(".md") || headings(page).iter().any(|anchor| anchor == heading);
    (!known).then(|| format!("{path} has no heading #{heading}"))
}

/// A relative link from a page; none where it leaves the root.
fn join(page: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    (!link.starts_with('/')).then(|| parts.join("/"))
}

/// The anchors of a page, made from its headings as the usual forges make them.
fn headings(page: &File) -> Vec<String> {
    let mut fenced = false;
    let mut anchors = Vec::new();
    for (_, text) in page.lines() {
        fenced ^= text.starts_with("```");
        if let Some(title) = text.strip_prefix('#').filter(|_| !fenced) {
            anchors.push(anchor(title.trim_start_matches('#').trim()));
        }
    }
    anchors
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let tree = Tree::of(&[
            ("docs/page.md", text),
            ("docs/errors/disk-full.md", "# disk-full\n\n## Cause & cure, again\n```\n# not one\n```\n"),
            ("README.md", "# Towpath\n"),
            ("LICENSE-MIT", ""),
        ]);
        resolve(&tree).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn links_lead_to_files_folders_and_headings() {
        let good = "[a](errors/disk-full.md), [b](../README.md#towpath) and [c](errors/)\n[d](#here) [e](https://x.y/z) [f](mailto:a@b)\n\
                    # Here\n[g](errors/disk-full.md#cause--cure-again \"title\") [h](../LICENSE-MIT) [i](<../README.md>)\n[j]: ../README.md\n[k](..)\n";
        assert_eq!(found(good), [0_usize; 0]);
    }

    #[test]
    fn broken_links_are_found() {
        let bad = "[a](errors/none.md)\n[b](../../README.md)\n[c](#nowhere)\n[d](errors/disk-full.md#not-one)\n[e](/README.md)\n\
                   [f]: none.md\nok [g](../README.md) and [h](none)\n";
        assert_eq!(found(bad), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(found("`[a](none.md)`\n```\n[b](none.md)\n```\n"), [0_usize; 0]);
    }
}
