//! Where the statements and sections of a TOML text stand, also of one that has mistakes.

use std::ops::Range;

use toml_parser::{
    Source,
    parser::{Event, EventKind, parse_document},
};

/// What the reader of TOML says of a key or a section that is there already.
pub(super) const DUPLICATE: &str = "duplicate key";

/// `key = value` in a section, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// The first part of its key.
    pub(super) key: String,
    /// From the first letter of the key to the last of the value.
    pub(super) place: Range<usize>,
}

/// `[path]` or `[[path]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The parts of its name.
    pub(super) path: Vec<String>,
    /// Its header, with the brackets.
    pub(super) header: Range<usize>,
}

/// What a place belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot<'a> {
    /// A statement.
    Statement(&'a Statement),
    /// A section's header, or what is neither in its statements.
    Section(&'a Section),
    /// What stands before every section.
    Nothing,
}

/// The statements and sections of a text, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) statements: Vec<Statement>,
    pub(super) sections: Vec<Section>,
    length: usize,
}

impl Outline {
    pub(super) fn of(text: &str) -> Self {
        let tokens = Source::new(text).lex().into_vec();
        let mut events: Vec<Event> = Vec::new();
        parse_document(&tokens, &mut events, &mut ());
        let mut builder = Builder { text, outline: Self { length: text.len(), ..Self::default() }, ..Builder::default() };
        for event in &events {
            builder.take(event);
        }
        builder.end_statement();
        builder.outline
    }

    /// What a place belongs to.
    pub(super) fn spot(&self, at: usize) -> Spot<'_> {
        if let Some(statement) = self.statements.iter().find(|one| one.place.contains(&at)) {
            return Spot::Statement(statement);
        }
        self.section_at(at).map_or(Spot::Nothing, Spot::Section)
    }

    /// The section in which a place stands.
    pub(super) fn section_at(&self, at: usize) -> Option<&Section> {
        self.sections.iter().rev().find(|section| section.header.start <= at)
    }

    /// The section that a section belongs to: the last one before it whose name its own begins with.
    pub(super) fn parent(&self, of: &Section) -> Option<&Section> {
        let is_above = |one: &&Section| {
            one.header.start < of.header.start && one.path.len() < of.path.len() && of.path.starts_with(&one.path)
        };
        self.sections.iter().rev().find(is_above)
    }

    /// What to do about a key or a section at a place that is there already, and where the one before it stands. Nothing of a value
    /// is in it: that may be a password.
    pub(super) fn hint_of_duplicate(&self, text: &str, at: usize) -> String {
        let line = |of: &Range<usize>| text.get(..of.start).unwrap_or_default().matches('\n').count() + 1;
        let written = |of: &Range<usize>| text.get(of.clone()).unwrap_or_default();
        match self.spot(at) {
            Spot::Section(section) => {
                let name = written(&section.header);
                let before = |one: &&Section| one.header.start < section.header.start && one.path == section.path;
                match self.sections.iter().rfind(before).map(|one| (line(&one.header), written(&one.header))) {
                    Some((line, same)) if same == name => {
                        format!(
                            "{name} stands in line {line} already: put the settings of both below one of them, and remove the other"
                        )
                    }
                    Some((line, other)) => {
                        format!("line {line} writes it as {other}: write it in the same way, once or each time")
                    }
                    None => format!("something above gives {name} already: put the settings of both into one place"),
                }
            }
            Spot::Statement(statement) => {
                let key = |of: &Statement| written(&of.place).split('=').next().unwrap_or_default().trim().to_owned();
                let (name, section) = (key(statement), self.section_at(at));
                let before = |one: &&Statement| {
                    one.place.start < statement.place.start && key(one) == name && self.section_at(one.place.start) == section
                };
                match self.statements.iter().rfind(before).map(|one| line(&one.place)) {
                    Some(line) => format!("`{name}` stands in line {line} already: remove one of the two"),
                    None => format!("`{name}` gives something that is there already: remove one of the two"),
                }
            }
            Spot::Nothing => "remove one of the two".to_owned(),
        }
    }

    /// A section with everything that belongs to it, as far as the next that does not.
    pub(super) fn region(&self, of: &Section) -> Range<usize> {
        let belongs = |one: &&Section| one.path.len() > of.path.len() && one.path.starts_with(&of.path);
        let next = self.sections.iter().filter(|one| one.header.start > of.header.start).find(|one| !belongs(one));
        of.header.start..next.map_or(self.length, |next| next.header.start)
    }
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    outline: Outline,
    depth: usize,
    header: Option<Section>,
    statement: Option<Statement>,
}

impl Builder<'_> {
    fn take(&mut self, event: &Event) {
        let span = event.span();
        match event.kind() {
            EventKind::StdTableOpen | EventKind::ArrayTableOpen => {
                self.end_statement();
                self.depth = 0;
                self.header = Some(Section { path: Vec::new(), header: span.start()..span.end() });
            }
            EventKind::StdTableClose | EventKind::ArrayTableClose => {
                if let Some(mut section) = self.header.take() {
                    section.header.end = span.end().max(section.header.end);
                    self.outline.sections.push(section);
                }
            }
            EventKind::SimpleKey => {
                let name = self.text.get(span.start()..span.end()).unwrap_or_default().trim_matches(['"', '\'']).to_owned();
                match (&mut self.header, &self.statement) {
                    (Some(section), _) => section.path.push(name),
                    (None, None) => {
                        self.statement = Some(Statement { key: name, place: span.start()..span.end() });
                    }
                    (None, Some(_)) => {}
                }
            }
            EventKind::ArrayOpen | EventKind::InlineTableOpen => self.depth += 1,
            EventKind::ArrayClose | EventKind::InlineTableClose => {
                self.depth = self.depth.saturating_sub(1);
                self.extend(span.end());
            }
            EventKind::Scalar | EventKind::Error => self.extend(span.end()),
            EventKind::Newline if self.depth == 0 => {
                self.end_statement();
                self.header = None;
            }
            _ => {}
        }
    }

    fn extend(&mut self, end: usize) {
        if let Some(statement) = &mut self.statement {
            statement.place.end = end.max(statement.place.end);
        }
    }

    fn end_statement(&mut self) {
        self.outline.statements.extend(self.statement.take());
    }
}

/// The text with spaces in the place of a part of it; line ends stay, and every other part keeps its place.
pub(super) fn blanked(text: &str, part: Range<usize>) -> String {
    let fill = |(at, c): (usize, char)| -> String {
        if part.contains(&at) && c != '\n' && c != '\r' { " ".repeat(c.len_utf8()) } else { c.to_string() }
    };
    text.char_indices().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "top = 1\n[a]\nx.y = [1, # ]\n  { k = 2 }]\n[[job]]\nname = \"ä\"\n[job.source] # c\nkind = '''\nlong'''\n[[job]]\n";

    #[test]
    fn statements_and_sections_have_their_places() {
        let outline = Outline::of(TEXT);
        let statements: Vec<_> = outline.statements.iter().map(|one| (&*one.key, &TEXT[one.place.clone()])).collect();
        let expected =
            [("top", "top = 1"), ("x", "x.y = [1, # ]\n  { k = 2 }]"), ("name", "name = \"ä\""), ("kind", "kind = '''\nlong'''")];
        assert_eq!(statements, expected);
        let sections: Vec<_> = outline.sections.iter().map(|one| &TEXT[one.header.clone()]).collect();
        assert_eq!(sections, ["[a]", "[[job]]", "[job.source]", "[[job]]"]);
    }

    #[test]
    fn a_section_has_what_belongs_to_it() {
        let outline = Outline::of(TEXT);
        let region = &TEXT[outline.region(&outline.sections[1])];
        assert!(region.starts_with("[[job]]\nname") && region.ends_with("long'''\n"), "{region}");
        assert_eq!(&TEXT[outline.region(&outline.sections[3])], "[[job]]\n");
        assert_eq!(outline.parent(&outline.sections[2]), Some(&outline.sections[1]));
        assert_eq!(outline.parent(&outline.sections[1]), None);
        assert_eq!(outline.spot(0), Spot::Statement(&outline.statements[0]));
        assert_eq!(outline.spot(TEXT.find("[a]").unwrap()), Spot::Section(&outline.sections[0]));
        assert_eq!(outline.spot(TEXT.find("{ k").unwrap()), Spot::Statement(&outline.statements[1]));
        assert_eq!(Outline::of("\n").spot(0), Spot::Nothing);
    }

    #[test]
    fn blanks_keep_every_place() {
        let at = TEXT.find("name").unwrap();
        let blank = blanked(TEXT, at..at + 11);
        assert_eq!((blank.len(), blank.matches('\n').count()), (TEXT.len(), TEXT.matches('\n').count()));
        assert!(blank.contains("[[job]]\n           \n[job.source]"), "{blank}");
    }
}
