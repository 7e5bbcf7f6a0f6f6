//! The form in which paths are taken from the wire.

use std::fmt;

use towpath_transfer::RemotePath;

use super::vfs::{FsError, FsResult};

/// The longest path of [`AnyPath`], in bytes (`PATH_MAX` of Linux, without the NUL).
const MAX_ANY_PATH_BYTES: usize = 4095;

/// A parsed path. [`RemotePath`] is the form of every production view; [`AnyPath`] is for general-purpose trees.
pub trait PathForm: Clone + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Parses what a peer sent.
    ///
    /// # Errors
    /// [`FsError::NotFound`] for every form that is not accepted: a wrong path answers like a missing one.
    fn parse(raw: &[u8]) -> FsResult<Self>;
}

impl PathForm for RemotePath {
    fn parse(raw: &[u8]) -> FsResult<Self> {
        Self::parse(raw).map_err(|_| FsError::NotFound)
    }
}

/// An absolute path with any UTF-8 names, `.` and `..` resolved by text alone and `..` at the root staying there. Not for
/// production views: these use [`RemotePath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyPath(String);

impl PathForm for AnyPath {
    fn parse(raw: &[u8]) -> FsResult<Self> {
        let text = std::str::from_utf8(raw).map_err(|_| FsError::NotFound)?;
        // A decoder further out has replaced bytes that are not UTF-8.
        if raw.len() > MAX_ANY_PATH_BYTES || text.contains(['\0', '\u{fffd}']) {
            return Err(FsError::NotFound);
        }
        let mut components: Vec<&str> = Vec::new();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    components.pop();
                }
                name => components.push(name),
            }
        }
        let path = format!("/{}", components.join("/"));
        if path.len() > MAX_ANY_PATH_BYTES {
            return Err(FsError::NotFound);
        }
        Ok(Self(path))
    }
}

impl fmt::Display for AnyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_forms_answer_like_missing_files() {
        for raw in [&b"../x"[..], b"a\xff", "a\u{fffd}".as_bytes(), b"a\0", b"C:/x", b"con", b"a\\b", &[b'a'; 201]] {
            assert_eq!(<RemotePath as PathForm>::parse(raw), Err(FsError::NotFound), "{raw:?}");
        }
        for raw in [&b"a\xff"[..], "a\u{fffd}".as_bytes(), b"a\0", &[b'a'; 4095]] {
            assert_eq!(AnyPath::parse(raw), Err(FsError::NotFound), "{raw:?}");
        }
    }

    #[test]
    fn any_path_is_absolute_and_plain() {
        for (raw, expected) in [("", "/"), ("../..", "/"), ("/a//./b/../\"c\"*", "/a/\"c\"*"), ("x", "/x")] {
            assert_eq!(AnyPath::parse(raw.as_bytes()).unwrap().to_string(), expected);
        }
        // The slash that a relative path gets counts.
        let longest = "a".repeat(4094);
        assert_eq!(AnyPath::parse(longest.as_bytes()).unwrap().to_string(), format!("/{longest}"));
    }
}
