//! Where a password of somebody else's is, so that it does not stand in a configuration file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::failure::{Code, Failure, Result};

/// The longest password, in bytes.
pub const MAX_SECRET_BYTES: usize = 4 * 1024;
/// The largest file with one: the password and the end of its line.
pub const MAX_SECRET_FILE_BYTES: u64 = MAX_SECRET_BYTES as u64 + 2;

/// A reference to a password, written `file:PATH` or `env:VARIABLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file that only its owner may read.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

impl Secret {
    /// Reads the reference; a relative path counts from `folder`. `None` where it has neither form.
    #[must_use]
    pub fn parse(text: &str, folder: &Path) -> Option<Self> {
        match text.split_once(':')? {
            ("file", path) if !path.is_empty() => Some(Self::File(folder.join(path))),
            ("env", name) if !name.is_empty() => Some(Self::Variable(name.to_owned())),
            _ => None,
        }
    }

    /// The password: from `variable`, or by `file`, which gives at most so many bytes and refuses a file that others may read. The
    /// end of the line belongs to the file, not to the password. `what` names the password in messages.
    ///
    /// # Errors
    /// `config-invalid` where there is none, or it is no text; those of `file`.
    pub fn read(
        &self,
        what: &str,
        variable: &dyn Fn(&str) -> Option<String>,
        file: &dyn Fn(&Path, u64) -> Result<Vec<u8>>,
    ) -> Result<String> {
        let unusable = |why: &str| Failure::park(Code::ConfigInvalid, format!("{what} cannot be used: {why}"));
        match self {
            Self::Variable(name) => variable(name).ok_or_else(|| unusable(&format!("the environment has no variable {name}"))),
            Self::File(path) => {
                let text =
                    String::from_utf8(file(path, MAX_SECRET_FILE_BYTES)?).map_err(|_| unusable("its file is not UTF-8"))?;
                Ok(text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
            }
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_two_forms() {
        let folder = Path::new("/etc/towpath");
        assert_eq!(Secret::parse("file:pw", folder), Some(Secret::File("/etc/towpath/pw".into())));
        assert_eq!(Secret::parse("env:PW", folder), Some(Secret::Variable("PW".into())));
        for bad in ["secret", "file:", "env:", "FILE:x", ""] {
            assert_eq!(Secret::parse(bad, folder), None, "{bad:?}");
        }
        assert_eq!(Secret::Variable("PW".into()).to_string(), "env:PW");
    }

    #[test]
    fn the_line_end_is_not_part_of_it() {
        let secret = Secret::File("/pw".into());
        for (content, password) in [("pass", "pass"), ("pass\n", "pass"), ("pass\r\n", "pass"), (" p ", " p ")] {
            let file = |_: &Path, limit: u64| {
                assert_eq!(limit, MAX_SECRET_FILE_BYTES);
                Ok(content.as_bytes().to_vec())
            };
            assert_eq!(secret.read("it", &|_| None, &file).unwrap(), password);
        }
        let none = Secret::Variable("PW".into()).read("the password", &|_| None, &|_, _| Ok(Vec::new())).unwrap_err();
        assert_eq!(none.code(), Code::ConfigInvalid);
        assert_eq!(none.message(), "the password cannot be used: the environment has no variable PW");
        let binary = secret.read("it", &|_| None, &|_, _| Ok(vec![0xff])).unwrap_err();
        assert!(binary.message().contains("UTF-8"));
    }
}
