//! Every mistake of a configuration file at once: what is wrong is blanked out and the rest is read again.

use std::path::Path;

use toml::de::DeTable;

use super::{
    ConfigMistake, hints,
    outline::{Outline, Section, Spot, blanked},
};

/// The most mistakes that are told at once.
pub const MAX_MISTAKES: usize = 20;
/// How often a file is read again after a part of it was blanked out: each mistake, and what follows from it.
const MAX_ROUNDS: usize = 5 * MAX_MISTAKES;

/// Reads a configuration by `read`, and finds every mistake where it has some, in the order of their places and at most
/// [`MAX_MISTAKES`]. `example` is the program's example file, which knows every key.
///
/// # Errors
/// The mistakes, at least one. What only follows from another is not among them.
pub fn every_mistake<T>(
    text: &str,
    file: &Path,
    example: &str,
    read: &dyn Fn(&str) -> Result<T, ConfigMistake>,
) -> Result<T, Vec<ConfigMistake>> {
    let mut search = Search { text, file, example, rest: text.to_owned(), gone: Vec::new(), found: Vec::new() };
    for _ in 0..MAX_ROUNDS {
        let goes_on = match search.syntax() {
            Some(mistake) => search.broken(mistake),
            None => match read(&search.rest) {
                Ok(value) if search.found.is_empty() => return Ok(value),
                Ok(_) => false,
                Err(mistake) => search.wrong(mistake),
            },
        };
        if !goes_on || search.found.len() >= MAX_MISTAKES {
            break;
        }
    }
    search.found.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(search.found)
}

/// Something that was blanked out: what only follows from that is no mistake of its own.
struct Gone {
    /// Where the section begins that it stood in; 0 before all sections.
    section: usize,
    /// Its key, and the one that was probably meant.
    names: Vec<String>,
}

struct Search<'a> {
    text: &'a str,
    file: &'a Path,
    example: &'a str,
    rest: String,
    gone: Vec<Gone>,
    found: Vec<ConfigMistake>,
}

impl Search<'_> {
    /// The first place that is no TOML.
    fn syntax(&self) -> Option<ConfigMistake> {
        let (_, errors) = DeTable::parse_recoverable(&self.rest);
        let first = errors.into_iter().min_by_key(|error| error.span().map_or(0, |span| span.start))?;
        Some(ConfigMistake::from_toml(self.file, self.text, &first))
    }

    /// Tells of a line that is no TOML, and blanks it out; of a section's header with the section, whose keys would else belong to
    /// the one before.
    fn broken(&mut self, mistake: ConfigMistake) -> bool {
        let at = mistake.start.unwrap_or(0).min(self.rest.len());
        let line = hints::line_at(&self.rest, at);
        let written = self.rest.get(line.clone()).unwrap_or_default().to_owned();
        let section = Outline::of(&self.rest).section_at(at).map_or(0, |section| section.header.start);
        let mut part = line.clone();
        let mut name = written.split('=').next().unwrap_or_default().trim();
        if name.starts_with('[') {
            name = name.trim_matches(['[', ']', ' ', '\r']);
            part.end = end_of_broken_section(&self.rest, line.end, name);
        }
        self.gone.push(Gone { section, names: vec![name.rsplit('.').next().unwrap_or_default().trim().to_owned()] });
        self.found.push(mistake);
        self.blank(part)
    }

    /// Tells of a mistake, unless it only follows from what is blanked out, and blanks out the smallest part that it stands in.
    fn wrong(&mut self, mistake: ConfigMistake) -> bool {
        let Some(start) = mistake.start.filter(|_| mistake.file == self.file) else {
            self.found.push(mistake);
            return false;
        };
        let outline = Outline::of(&self.rest);
        let spot = outline.spot(start);
        let of = |section: Option<&Section>| section.map_or(0, |section| section.header.start);
        let (home, key, part) = match spot {
            Spot::Statement(statement) => (of(outline.section_at(start)), statement.key.clone(), Some(statement.place.clone())),
            Spot::Section(section) => {
                let name = section.path.last().cloned().unwrap_or_default();
                (of(outline.parent(section)), name, Some(outline.region(section)))
            }
            Spot::Nothing => (0, String::new(), None),
        };
        let place = of(outline.section_at(start));
        let words: Vec<&str> = mistake.problem.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).collect();
        // What the reader of TOML says of a key or a value stands on its own, whatever else is named in it.
        let is_own = ["unknown ", "invalid "].iter().any(|begin| mistake.problem.starts_with(begin));
        let follows = !is_own
            && self.gone.iter().any(|gone| gone.section == place && gone.names.iter().any(|name| words.contains(&name.as_str())));
        let mistake = self.hinted(mistake, &key);
        let meant = mistake.meant.clone();
        if !follows {
            let ConfigMistake { problem, meant, hint, .. } = mistake;
            self.found.push(ConfigMistake {
                meant,
                hint,
                ..ConfigMistake::at(self.file, self.text, Some(start..start), problem)
            });
        }
        self.gone.push(Gone { section: home, names: std::iter::once(key).chain(meant).collect() });
        part.is_some_and(|part| self.blank(part))
    }

    fn hinted(&self, mut mistake: ConfigMistake, key: &str) -> ConfigMistake {
        if mistake.hint.is_none() {
            let hint = hints::of_value(&mistake.problem, Some(key));
            let elsewhere = if hint.is_none() { self.elsewhere(&mistake.problem) } else { None };
            if elsewhere.is_some() {
                // A key that is right somewhere else was hardly misspelt.
                mistake.meant = None;
            }
            mistake.hint = hint.or(elsewhere).map(String::into_boxed_str);
        }
        mistake
    }

    /// Where a key belongs that is unknown where it stands.
    fn elsewhere(&self, problem: &str) -> Option<String> {
        let name = problem.strip_prefix("unknown field `")?.split('`').next()?;
        let sections = hints::sections_with(self.example, name);
        let named: Vec<&str> =
            sections.iter().map(|section| if section.is_empty() { "the top of the file" } else { section }).collect();
        (!named.is_empty()).then(|| format!("`{name}` belongs to {}", named.join(" or ")))
    }

    /// Whether anything was there to be blanked out.
    fn blank(&mut self, part: std::ops::Range<usize>) -> bool {
        let blank = blanked(&self.rest, part);
        let changed = blank != self.rest;
        self.rest = blank;
        changed
    }
}

/// Where the next section begins that does not belong to the broken one.
fn end_of_broken_section(text: &str, from: usize, name: &str) -> usize {
    let mut at = from;
    for line in text.get(from..).unwrap_or_default().split_inclusive('\n') {
        let header = line.trim_start().starts_with('[').then(|| line.trim().trim_start_matches('['));
        let belongs = |header: &str| header.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        if header.is_some_and(|header| !belongs(header)) {
            return at;
        }
        at += line.len();
    }
    text.len()
}
