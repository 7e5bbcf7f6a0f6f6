//! Names and paths that arrive from outside, parsed once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest path component, in bytes.
pub const MAX_COMPONENT_BYTES: usize = 200;
/// The longest remote path, in bytes of its absolute text.
pub const MAX_PATH_BYTES: usize = 1024;
/// The deepest remote path, in components.
pub const MAX_PATH_DEPTH: usize = 16;

/// Why a name or path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// No name at all.
    #[error("the name is empty")]
    Empty,
    /// Over [`MAX_COMPONENT_BYTES`], [`MAX_PATH_BYTES`] or [`MAX_PATH_DEPTH`].
    #[error(
        "the name is longer than {MAX_COMPONENT_BYTES} bytes, or its path longer than {MAX_PATH_BYTES} bytes or {MAX_PATH_DEPTH} folders"
    )]
    TooLong,
    /// Bytes that are not UTF-8, or that a decoder has already replaced by U+FFFD.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A character that some file system treats as structure, or that hides what the name is.
    #[error("the name holds a control character, a path separator or one of : * ? \" < > |")]
    ForbiddenCharacter,
    /// A name that some file system changes or treats as a device (`CON`, `aux.txt`, a trailing dot or space).
    #[error("the name means something else on another system")]
    Ambiguous,
    /// A `..` that leads above the root.
    #[error("the path leads outside")]
    Escapes,
}

/// One file name, safe to create on every supported file system: no separators, no control characters, no device names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, max_length = 200)]
pub struct FileName(String);

impl FileName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name with `suffix` appended.
    ///
    /// # Errors
    /// Where the longer name is not valid any more.
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, InvalidName> {
        format!("{}{suffix}", self.0).parse()
    }

    /// What two names must differ in to be kept side by side on a file system that ignores case.
    #[must_use]
    pub fn case_folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for FileName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_component(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for FileName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_component(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > MAX_COMPONENT_BYTES {
        return Err(InvalidName::TooLong);
    }
    if text.contains('\u{fffd}') {
        return Err(InvalidName::NotUtf8);
    }
    if text.chars().any(is_forbidden) {
        return Err(InvalidName::ForbiddenCharacter);
    }
    if text == "." || text == ".." || text.ends_with('.') || text.ends_with(' ') || text.starts_with(' ') {
        return Err(InvalidName::Ambiguous);
    }
    if is_device(text) { Err(InvalidName::Ambiguous) } else { Ok(()) }
}

/// Control and bidirectional formatting characters hide what a name is; the rest is structure on Windows or Unix.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Device names of Windows, which hold whatever extension follows (Microsoft, "Naming Files, Paths, and Namespaces").
pub(crate) fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or(text).trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let numbered = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    numbered.is_some_and(|n| {
        let mut chars = n.chars();
        matches!((chars.next(), chars.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

/// A path as an SFTP peer sees it: absolute, normalised, below its own root, each component a valid [`FileName`].
/// There is no other way to name a file on the relay or the receiver's landing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemotePath {
    components: Vec<FileName>,
}

impl RemotePath {
    /// The peer's own root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses what a peer sent. Relative paths start at the root; `.` and empty components vanish; `..` goes up, and
    /// above the root it is an error.
    ///
    /// # Errors
    /// [`InvalidName`] for the first component that is not a [`FileName`], and for a path beyond the limits.
    pub fn parse(raw: &[u8]) -> Result<Self, InvalidName> {
        if raw.len() > MAX_PATH_BYTES {
            return Err(InvalidName::TooLong);
        }
        let text = std::str::from_utf8(raw).map_err(|_| InvalidName::NotUtf8)?;
        let mut path = Self::root();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    path.components.pop().ok_or(InvalidName::Escapes)?;
                }
                name => path = path.join(name.parse()?)?,
            }
        }
        Ok(path)
    }

    /// This path and one component more.
    ///
    /// # Errors
    /// [`InvalidName::TooLong`] beyond [`MAX_PATH_DEPTH`], and where its text would be longer than [`MAX_PATH_BYTES`]: every
    /// path can be parsed from its own text.
    pub fn join(mut self, name: FileName) -> Result<Self, InvalidName> {
        self.components.push(name);
        let bytes: usize = self.components.iter().map(|name| "/".len() + name.as_str().len()).sum();
        if self.components.len() > MAX_PATH_DEPTH || bytes > MAX_PATH_BYTES {
            return Err(InvalidName::TooLong);
        }
        Ok(self)
    }

    /// The components from the root down.
    #[must_use]
    pub fn components(&self) -> &[FileName] {
        &self.components
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&FileName> {
        self.components.last()
    }

    /// The path without its last component; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.components.split_last()?;
        Some(Self { components: parents.to_vec() })
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.components.is_empty() {
            return f.write_str("/");
        }
        self.components.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl TryFrom<String> for RemotePath {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RemotePath> for String {
    fn from(path: RemotePath) -> Self {
        path.to_string()
    }
}

impl FromStr for RemotePath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised_below_the_root() {
        for (given, expected) in [("", "/"), (".", "/"), ("/", "/"), ("a//b/./c", "/a/b/c"), ("/a/../b", "/b"), ("./a/", "/a")] {
            assert_eq!(RemotePath::parse(given.as_bytes()).unwrap().to_string(), expected, "{given:?}");
        }
        for (bad, why) in [
            ("..", InvalidName::Escapes),
            ("/a/../../b", InvalidName::Escapes),
            ("a\\b", InvalidName::ForbiddenCharacter),
            ("C:/x", InvalidName::ForbiddenCharacter),
            ("a\0b", InvalidName::ForbiddenCharacter),
            ("nul", InvalidName::Ambiguous),
            ("com1.txt", InvalidName::Ambiguous),
            ("x.", InvalidName::Ambiguous),
            ("x ", InvalidName::Ambiguous),
            ("\u{202e}txt.exe", InvalidName::ForbiddenCharacter),
            ("a\u{fffd}", InvalidName::NotUtf8),
        ] {
            assert_eq!(RemotePath::parse(bad.as_bytes()), Err(why), "{bad:?}");
        }
        assert_eq!(RemotePath::parse(b"a\xff"), Err(InvalidName::NotUtf8));
        assert_eq!(RemotePath::parse("a/".repeat(17).as_bytes()), Err(InvalidName::TooLong));
    }

    #[test]
    fn the_longest_path_parses_from_its_own_text() {
        // Eight components of 127 bytes, each with its slash, are the 1,024 bytes.
        let name = "a".repeat(127);
        let longest = [&*name; 8].join("/");
        let path = RemotePath::parse(longest.as_bytes()).unwrap();
        let text = path.to_string();
        assert_eq!(text.len(), MAX_PATH_BYTES);
        assert_eq!(text.parse(), Ok(path.clone()));
        // A relative path of as many bytes would be one longer with its slash.
        assert_eq!(RemotePath::parse(format!("{longest}a").as_bytes()), Err(InvalidName::TooLong));
        assert_eq!(path.join("a".parse().unwrap()), Err(InvalidName::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_parses_is_below_the_root_and_parses_to_itself(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(path) = RemotePath::parse(&raw) {
                let text = path.to_string();
                prop_assert!(path.components().iter().all(|c| c.as_str() != ".." && !c.as_str().contains('/')));
                prop_assert_eq!(RemotePath::parse(text.as_bytes()), Ok(path));
            }
        }
    }
}
