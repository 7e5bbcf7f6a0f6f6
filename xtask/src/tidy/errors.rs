//! Rule `errors`: every operator error code has its page, every page its code, and the index lists them all.

use super::{
    Finding,
    tree::{File, Tree},
};

const CODES: &str = "transfer/src/failure.rs";
const PAGES: &str = "docs/errors/";
const INDEX: &str = "docs/errors/README.md";

/// Rule `errors`.
pub(crate) fn pages(tree: &Tree) -> Vec<Finding> {
    let Some(source) = tree.get(CODES) else { return Vec::new() };
    let codes = codes(source);
    if codes.is_empty() {
        return vec![Finding::new(CODES, 1, "errors", "no `codes! { Variant = \"text\", }` here: mend this rule with it")];
    }
    let mut findings = Vec::new();
    let index = tree.get(INDEX);
    if index.is_none() {
        findings.push(Finding::new(CODES, 1, "errors", format!("write {INDEX}, a table of all codes")));
    }
    for (line, code) in &codes {
        match tree.get(&format!("{PAGES}{code}.md")) {
            None => findings.push(Finding::new(CODES, *line, "errors", format!("write {PAGES}{code}.md: cause and remedy"))),
            Some(page) => findings.extend(page_form(page, code)),
        }
        if index.is_some_and(|index| !index.text.contains(&format!("]({code}.md)"))) {
            findings.push(Finding::new(INDEX, 1, "errors", format!("list {code} with a link to its page")));
        }
    }
    for file in tree.files().filter(|file| file.path.starts_with(PAGES) && file.path != INDEX) {
        let code = file.name().strip_suffix(".md").unwrap_or_default();
        if !codes.iter().any(|(_, known)| known == code) {
            findings.push(Finding::new(&file.path, 1, "errors", format!("no such code in {CODES}: remove the page")));
        }
    }
    findings
}

/// The text of every code with its line: `Variant = "text",` inside `codes! { … }`.
fn codes(source: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines = source.lines().skip_while(|(_, text)| text.trim_end() != "codes! {").take_while(|(_, text)| *text != "}");
    for (line, text) in lines {
        let text = text.trim();
        let code = text.split_once(" = \"").and_then(|(_, rest)| rest.strip_suffix("\","));
        if let Some(code) = code.filter(|_| !text.starts_with("//")) {
            found.push((line, code.to_owned()));
        }
    }
    found
}

/// A page has its code as the title, then cause and remedy, each with something to say.
fn page_form(page: &File, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if page.lines().next().map(|(_, text)| text) != Some(format!("# {code}").as_str()) {
        findings.push(Finding::new(&page.path, 1, "errors", format!("begin with `# {code}`")));
    }
    for heading in ["## Cause", "## Remedy"] {
        let mut below = page.lines().skip_while(|(_, text)| *text != heading);
        let line = below.next().map(|(line, _)| line);
        let says = below.take_while(|(_, text)| !text.starts_with('#')).any(|(_, text)| !text.trim().is_empty());
        if !says {
            findings.push(Finding::new(&page.path, line.unwrap_or(1), "errors", format!("write what `{heading}` is")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "codes! {\n    /// A = \"b\",\n    DiskFull = \"disk-full\",\n    /// Lost.\n    KeyMissing = \"key-missing\",\n}\nlet c = \"d\",\n";
    const INDEXED: &str = "[disk-full](disk-full.md) [key-missing](key-missing.md)\n";

    fn page(code: &str) -> String {
        format!("# {code}\n\nIt is.\n\n## Cause\n\nOne.\n\n## Remedy\n\nTwo.\n")
    }

    fn found(extra: &[(&str, &str)]) -> Vec<(String, usize)> {
        let (disk, key) = (page("disk-full"), page("key-missing"));
        let mut tree = Tree::of(&[
            (CODES, SOURCE),
            (INDEX, INDEXED),
            ("docs/errors/disk-full.md", &disk),
            ("docs/errors/key-missing.md", &key),
        ]);
        for (path, text) in extra {
            tree.add((*path).to_owned(), text.as_bytes().to_vec());
        }
        pages(&tree).into_iter().map(|f| (f.path, f.line)).collect()
    }

    #[test]
    fn codes_and_pages_agree() {
        assert!(found(&[]).is_empty());
        let more = SOURCE.replace("}\n", "    New = \"new\",\n}\n");
        assert_eq!(found(&[(CODES, &more)]), [(CODES.to_owned(), 6), (INDEX.to_owned(), 1)]);
        assert_eq!(found(&[("docs/errors/old.md", "# old\n")]), [("docs/errors/old.md".to_owned(), 1)]);
        assert_eq!(found(&[(INDEX, "[disk-full](disk-full.md)\n")]), [(INDEX.to_owned(), 1)]);
    }

    #[test]
    fn a_page_says_cause_and_remedy() {
        let path = "docs/errors/disk-full.md";
        let of = |text: &str| found(&[(path, text)]).into_iter().map(|(_, line)| line).collect::<Vec<_>>();
        assert_eq!(of(&page("disk-fall")), [1]);
        assert_eq!(of("# disk-full\n\n## Cause\n\n## Remedy\n\nTwo.\n"), [3]);
        assert_eq!(of("# disk-full\n\n## Cause\n\nOne.\n"), [1]);
    }

    #[test]
    fn a_moved_list_of_codes_is_noticed() {
        let moved = Tree::of(&[(CODES, "enum Code {}\n")]);
        assert_eq!(pages(&moved).len(), 1);
    }
}
