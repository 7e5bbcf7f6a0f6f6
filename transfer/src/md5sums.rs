//! The `MD5SUMS` file, as `md5sum` (GNU coreutils) writes and checks it.
//!
//! One line per file: 32 hexadecimal digits, a space, a space or `*` (text or binary, which mean the same outside Windows),
//! the name, LF. coreutils begins a line with `\` where the name holds a backslash, LF or CR, and writes those as `\\`, `\n`
//! and `\r`; such names are understood, and then refused as every [`FileName`] with them is.

use std::{collections::HashSet, fmt::Write as _};

use thiserror::Error;

use crate::{Code, Failure, FileName, digest::Md5Digest, name::InvalidName};

/// The most lines: as many as a manifest may have files.
pub const MAX_ENTRIES: usize = 10_000;

/// The most bytes of an `MD5SUMS` file. Read no more than one byte beyond it: [`parse`] refuses that.
pub const MAX_BYTES: usize = MAX_ENTRIES * 256;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Md5Entry {
    /// Of the plain bytes.
    pub md5: Md5Digest,
    /// Beside the `MD5SUMS` file.
    pub name: FileName,
}

/// Why an `MD5SUMS` file was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidMd5sums {
    /// Over [`MAX_ENTRIES`] or [`MAX_BYTES`].
    #[error("MD5SUMS has more than {MAX_ENTRIES} lines or {MAX_BYTES} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("MD5SUMS is not UTF-8")]
    NotUtf8,
    /// The last line has no LF, so the file may be cut off.
    #[error("MD5SUMS ends without a line feed")]
    MissingLineEnd,
    /// A line that is not of the form.
    #[error("line {line} of MD5SUMS is not 32 lower-case hexadecimal digits, two spaces (or ` *`) and a name")]
    Form {
        /// From 1.
        line: usize,
    },
    /// A name that is none.
    #[error("line {line} of MD5SUMS: {problem}")]
    Name {
        /// From 1.
        line: usize,
        /// What is wrong with the name.
        problem: InvalidName,
    },
    /// A name that was there before, also where only upper and lower case differ.
    #[error("line {line} of MD5SUMS repeats a name")]
    Repeated {
        /// From 1.
        line: usize,
    },
}

impl From<InvalidMd5sums> for Failure {
    fn from(error: InvalidMd5sums) -> Self {
        let code = if error == InvalidMd5sums::TooLong { Code::LimitExceeded } else { Code::ContentInvalid };
        Self::park(code, "reading MD5SUMS failed").caused_by(error)
    }
}

/// The text of the file, one line per entry in the order given.
///
/// # Errors
/// [`InvalidMd5sums::TooLong`] and [`InvalidMd5sums::Repeated`]: what is written can be read.
pub fn write<'a>(entries: impl IntoIterator<Item = (&'a Md5Digest, &'a FileName)>) -> Result<String, InvalidMd5sums> {
    let mut text = String::new();
    let mut names = HashSet::new();
    for ((md5, name), line) in entries.into_iter().zip(1..) {
        if line > MAX_ENTRIES {
            return Err(InvalidMd5sums::TooLong);
        }
        if !names.insert(name.case_folded()) {
            return Err(InvalidMd5sums::Repeated { line });
        }
        // A FileName has nothing that coreutils would escape. Writing to a string cannot fail.
        let _ = writeln!(text, "{md5}  {name}");
    }
    Ok(text)
}

/// The entries of a file, in its order.
///
/// # Errors
/// [`InvalidMd5sums`] for the first line that is wrong.
pub fn parse(bytes: &[u8]) -> Result<Vec<Md5Entry>, InvalidMd5sums> {
    if bytes.len() > MAX_BYTES {
        return Err(InvalidMd5sums::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidMd5sums::NotUtf8)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = text.strip_suffix('\n').ok_or(InvalidMd5sums::MissingLineEnd)?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for (content, line) in lines.split('\n').zip(1..) {
        if line > MAX_ENTRIES {
            return Err(InvalidMd5sums::TooLong);
        }
        let entry = parse_line(content, line)?;
        if !names.insert(entry.name.case_folded()) {
            return Err(InvalidMd5sums::Repeated { line });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn parse_line(content: &str, line: usize) -> Result<Md5Entry, InvalidMd5sums> {
    let form = || InvalidMd5sums::Form { line };
    let (escaped, content) = match content.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, content),
    };
    let (digest, rest) = content.split_once(' ').ok_or_else(form)?;
    let md5 = digest.parse().map_err(|_| form())?;
    let name = rest.strip_prefix([' ', '*']).ok_or_else(form)?;
    let name = if escaped { unescape(name).ok_or_else(form)? } else { name.to_owned() };
    let name = FileName::try_from(name).map_err(|problem| InvalidMd5sums::Name { line, problem })?;
    Ok(Md5Entry { md5, name })
}

/// The name behind coreutils' escapes; `None` for an escape it does not write.
fn unescape(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use proptest::prelude::*;

    use super::*;
    use crate::digest::FileHasher;

    const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn entry(md5: &str, name: &str) -> Md5Entry {
        Md5Entry { md5: md5.parse().unwrap(), name: name.parse().unwrap() }
    }

    fn text(entries: &[Md5Entry]) -> Result<String, InvalidMd5sums> {
        write(entries.iter().map(|entry| (&entry.md5, &entry.name)))
    }

    /// Runs `md5sum` in `folder`; a machine without it fails the test and says what to install.
    fn md5sum(folder: &std::path::Path, arguments: &[&str]) -> Output {
        let run = Command::new("md5sum").args(arguments).current_dir(folder).output();
        run.unwrap_or_else(|error| {
            panic!("md5sum cannot be run ({error}): install it, on Debian with `apt-get install coreutils`")
        })
    }

    #[test]
    fn md5sum_and_we_read_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("items.csv", "a\r\nabc\r\n"), ("Käufe 2024.csv", "abc"), ("empty.csv", "")];
        let mut entries = Vec::new();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
            let mut hasher = FileHasher::new();
            hasher.update(content.as_bytes());
            entries.push(Md5Entry { md5: hasher.finish().md5, name: name.parse().unwrap() });
        }
        let written = text(&entries).unwrap();
        std::fs::write(folder.path().join("MD5SUMS"), &written).unwrap();
        let checked = md5sum(folder.path(), &["--strict", "-c", "MD5SUMS"]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

        for binary in [&[][..], &["-b"]] {
            let names = files.map(|(name, _)| name);
            let made = md5sum(folder.path(), &[binary, &names[..]].concat());
            assert_eq!(parse(&made.stdout).unwrap(), entries);
        }
        assert_eq!(md5sum(folder.path(), &files.map(|(name, _)| name)).stdout, written.as_bytes());

        std::fs::write(folder.path().join("a\\b"), "abc").unwrap();
        let made = md5sum(folder.path(), &["a\\b"]).stdout;
        assert!(made.starts_with(b"\\"));
        assert_eq!(parse(&made), Err(InvalidMd5sums::Name { line: 1, problem: InvalidName::ForbiddenCharacter }));

        std::fs::write(folder.path().join("items.csv"), "changed").unwrap();
        assert!(!md5sum(folder.path(), &["-c", "MD5SUMS"]).status.success());
    }

    #[test]
    fn lines_are_strict() {
        assert_eq!(parse(b"").unwrap(), []);
        let good = format!("{ABC}  a.csv\n{ABC} *b.csv\n\\{ABC}  c.csv\n");
        assert_eq!(parse(good.as_bytes()).unwrap(), [entry(ABC, "a.csv"), entry(ABC, "b.csv"), entry(ABC, "c.csv")]);
        let form = InvalidMd5sums::Form { line: 1 };
        let name = |problem| InvalidMd5sums::Name { line: 1, problem };
        for (bad, expected) in [
            (format!("{ABC}  a.csv"), InvalidMd5sums::MissingLineEnd),
            (format!("{ABC} a.csv\n"), form),
            (format!("{ABC}\ta.csv\n"), form),
            (format!("{}  a.csv\n", ABC.to_uppercase()), form),
            (format!("{}  a.csv\n", &ABC[1..]), form),
            (format!("{ABC}0  a.csv\n"), form),
            ("\n".to_owned(), form),
            ("# comment\n".to_owned(), form),
            (format!("MD5 (a.csv) = {ABC}\n"), form),
            (format!("\\{ABC}  a\\x\n"), form),
            (format!("\\{ABC}  a\\\n"), form),
            (format!("\\{ABC}  a\\nb\n"), name(InvalidName::ForbiddenCharacter)),
            (format!("{ABC}  a.csv\r\n"), name(InvalidName::ForbiddenCharacter)),
            (format!("{ABC}  ../a\n"), name(InvalidName::ForbiddenCharacter)),
            (format!("{ABC}  ..\n"), name(InvalidName::Ambiguous)),
            (format!("{ABC}  \n"), name(InvalidName::Empty)),
            (format!("{ABC}   a\n"), name(InvalidName::Ambiguous)),
            (format!("{ABC}  a\n{ABC}  A\n"), InvalidMd5sums::Repeated { line: 2 }),
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(expected), "{bad:?}");
        }
        assert_eq!(parse(b"\xff\n"), Err(InvalidMd5sums::NotUtf8));
        assert_eq!(text(&[entry(ABC, "a"), entry(ABC, "A")]), Err(InvalidMd5sums::Repeated { line: 2 }));
    }

    #[test]
    fn entries_and_bytes_are_limited() {
        let entries: Vec<Md5Entry> = (0..=MAX_ENTRIES).map(|n| entry(ABC, &format!("{n:0>200}"))).collect();
        let most = text(&entries[1..]).unwrap();
        assert_eq!(parse(most.as_bytes()).unwrap().len(), MAX_ENTRIES);
        assert_eq!(text(&entries), Err(InvalidMd5sums::TooLong));
        assert_eq!(parse(format!("{ABC}  x\n{most}").as_bytes()), Err(InvalidMd5sums::TooLong));
        assert_eq!(parse(&vec![b'\n'; MAX_BYTES + 1]), Err(InvalidMd5sums::TooLong));
        assert_eq!(Failure::from(InvalidMd5sums::TooLong).code(), Code::LimitExceeded);
        assert_eq!(Failure::from(InvalidMd5sums::NotUtf8).code(), Code::ContentInvalid);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in proptest::collection::hash_set("[a-zäß][a-z0-9_ -]{0,20}[a-z]", 0..20), seed in any::<[u8; 16]>()) {
            let entries: Vec<Md5Entry> = names
                .iter()
                .filter_map(|name| Some(Md5Entry { md5: Md5Digest::from_bytes(seed), name: name.parse().ok()? }))
                .collect();
            prop_assert_eq!(parse(text(&entries).unwrap().as_bytes()).unwrap(), entries);
        }

        #[test]
        fn hostile_bytes_are_refused_or_safe(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
            let _ = parse(&[format!("\\{ABC}  ").as_bytes(), &bytes, b"\n"].concat());
        }
    }
}
