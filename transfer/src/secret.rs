//! Where a password of somebody else's is, so that it does not stand in a configuration file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::failure::{Code, Failure, Result};

/// The longest password, in bytes.
pub const MAX_SECRET_BYTES: usize = 4 * 1024;
/// The largest file with one: the password and the end of its line.
pub const MAX_SECRET_FILE_BYTES: u64 = MAX_SECRET_BYTES as u64 + 2;
/// The longest password in its protected form, in bytes: what Windows adds to one is less than half a kibibyte.
pub const MAX_PROTECTED_BYTES: usize = MAX_SECRET_BYTES + 1024;
/// What stands in the place of a text that is not shown.
pub const HIDDEN: &str = "(not shown)";

/// A reference to a password, or, for who insists, the password itself. No form of it shows a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// `file:PATH`: in a file that only its owner may read.
    File(PathBuf),
    /// `env:NAME`: in a variable of the environment.
    Variable(String),
    /// `systemd:NAME`: a credential that systemd passes to the service (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// `dpapi:BASE64`: protected by Windows, for this machine alone.
    Protected(Protected),
    /// `clear:TEXT`: the password itself.
    Clear(ClearText),
}

/// A password that Windows has protected.
#[derive(Clone, PartialEq, Eq)]
pub struct Protected(Vec<u8>);

/// A password that stands in the configuration itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ClearText(String);

/// Text that is no reference to a password. It never has the text in it, which may be the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSecret {
    /// None of the forms.
    #[error(
        "a secret is \"file:PATH\", \"env:NAME\", \"systemd:NAME\" or \"dpapi:BASE64\", so that it does not stand here; \
         \"clear:TEXT\" puts it here all the same"
    )]
    Form,
    /// The form without what follows the colon.
    #[error("after \"{0}:\" nothing follows")]
    Empty(&'static str),
    /// A name with a separator in it would lead out of the folder of credentials.
    #[error("after \"systemd:\" the name of a credential follows, without / and \\, as LoadCredential= in the unit has it")]
    CredentialName,
    /// Not what `secret protect` prints.
    #[error("after \"dpapi:\" what `towpath-agent secret protect` prints on this machine follows, and nothing else")]
    Protected,
    /// More than [`MAX_SECRET_BYTES`].
    #[error("a secret has at most {MAX_SECRET_BYTES} bytes")]
    Length,
}

/// What secrets are read from.
pub trait SecretSources {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// At most `limit` bytes of a file.
    ///
    /// # Errors
    /// Where there is none, or others may read or change it.
    fn file(&self, path: &Path, limit: u64) -> Result<Vec<u8>>;
    /// At most `limit` bytes of a credential of the service.
    ///
    /// # Errors
    /// Where systemd has passed none of that name.
    fn credential(&self, name: &str, limit: u64) -> Result<Vec<u8>>;
    /// What Windows has protected on this machine.
    ///
    /// # Errors
    /// On other systems and machines.
    fn unprotect(&self, protected: &[u8]) -> Result<Vec<u8>>;
}

impl Secret {
    /// Reads the reference; a relative path counts from `folder`.
    ///
    /// # Errors
    /// Says what a reference looks like, and never the text.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, InvalidSecret> {
        let (form, rest) = text.split_once(':').ok_or(InvalidSecret::Form)?;
        let form = ["file", "env", "systemd", "dpapi", "clear"].into_iter().find(|known| *known == form);
        let form = form.ok_or(InvalidSecret::Form)?;
        if rest.is_empty() {
            return Err(InvalidSecret::Empty(form));
        }
        Ok(match form {
            "file" => Self::File(folder.join(rest)),
            "env" => Self::Variable(rest.to_owned()),
            "systemd" if rest.contains(['/', '\\', '\0']) || rest == "." || rest == ".." => {
                return Err(InvalidSecret::CredentialName);
            }
            "systemd" => Self::Credential(rest.to_owned()),
            "dpapi" => Self::Protected(Protected::parse(rest)?),
            _ if rest.len() > MAX_SECRET_BYTES => return Err(InvalidSecret::Length),
            _ => Self::Clear(ClearText(rest.to_owned())),
        })
    }

    /// The password. The end of the line belongs to the file, not to the password. `what` names the password in messages.
    ///
    /// # Errors
    /// `secret-unusable`, tried again later: where it cannot be read, is longer than [`MAX_SECRET_BYTES`] or no text.
    pub fn read(&self, what: &str, sources: &dyn SecretSources) -> Result<String> {
        let unusable = || Failure::retry(Code::SecretUnusable, format!("{what} ({self}) cannot be used"));
        let bytes = match self {
            Self::Variable(name) => {
                let value = sources.variable(name);
                value.ok_or_else(|| unusable().caused_by(format!("the environment has no variable {name}")))?.into_bytes()
            }
            Self::File(path) => line(sources.file(path, MAX_SECRET_FILE_BYTES).map_err(|e| unusable().caused_by(e))?),
            Self::Credential(name) => line(sources.credential(name, MAX_SECRET_FILE_BYTES).map_err(|e| unusable().caused_by(e))?),
            Self::Protected(protected) => sources.unprotect(&protected.0).map_err(|e| unusable().caused_by(e))?,
            Self::Clear(text) => text.0.clone().into_bytes(),
        };
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(unusable().caused_by(InvalidSecret::Length));
        }
        String::from_utf8(bytes).map_err(|_| unusable().caused_by("it is not UTF-8"))
    }

    /// Whether the password stands in the configuration itself.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!(self, Self::Clear(_))
    }
}

fn line(mut bytes: Vec<u8>) -> Vec<u8> {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        } else {
            break;
        }
    }
    bytes
}

impl Protected {
    /// What Windows has made of a password.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    fn parse(text: &str) -> Result<Self, InvalidSecret> {
        // Four characters for three bytes.
        if text.len() > MAX_PROTECTED_BYTES.div_ceil(3) * 4 {
            return Err(InvalidSecret::Length);
        }
        STANDARD.decode(text).map(Self).map_err(|_| InvalidSecret::Protected)
    }

    /// The reference to write into a configuration file.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("dpapi:{}", STANDARD.encode(&self.0))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Variable(name) => write!(f, "env:{name}"),
            Self::Credential(name) => write!(f, "systemd:{name}"),
            Self::Protected(_) => write!(f, "dpapi:{HIDDEN}"),
            Self::Clear(_) => write!(f, "clear:{HIDDEN}"),
        }
    }
}

impl fmt::Debug for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Debug for ClearText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/etc/towpath";

    fn parse(text: &str) -> Result<Secret, InvalidSecret> {
        Secret::parse(text, Path::new(FOLDER))
    }

    /// Files and credentials have this content; Windows reverses what it protects.
    struct Given(&'static [u8]);

    impl SecretSources for Given {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "PW").then(|| String::from_utf8_lossy(self.0).into_owned())
        }
        fn file(&self, _: &Path, limit: u64) -> Result<Vec<u8>> {
            assert_eq!(limit, MAX_SECRET_FILE_BYTES);
            Ok(self.0.to_vec())
        }
        fn credential(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
            assert_eq!(limit, MAX_SECRET_FILE_BYTES);
            if name == "pw" { Ok(self.0.to_vec()) } else { Err(Failure::park(Code::FileFailed, "there is none")) }
        }
        fn unprotect(&self, protected: &[u8]) -> Result<Vec<u8>> {
            Ok(protected.iter().rev().copied().collect())
        }
    }

    #[test]
    fn a_reference_has_five_forms() {
        assert_eq!(parse("file:pw"), Ok(Secret::File("/etc/towpath/pw".into())));
        assert_eq!(parse("env:PW"), Ok(Secret::Variable("PW".into())));
        assert_eq!(parse("systemd:pw"), Ok(Secret::Credential("pw".into())));
        assert_eq!(parse("dpapi:aHVzaA=="), Ok(Secret::Protected(Protected(b"hush".to_vec()))));
        assert_eq!(parse("clear:a:b"), Ok(Secret::Clear(ClearText("a:b".into()))));
        assert!(parse("clear:x").unwrap().is_clear() && !parse("env:x").unwrap().is_clear());
        for bad in ["hush", "FILE:x", "", "File:x", "http://x"] {
            assert_eq!(parse(bad), Err(InvalidSecret::Form), "{bad:?}");
        }
        for form in ["file", "env", "systemd", "dpapi", "clear"] {
            assert_eq!(parse(&format!("{form}:")), Err(InvalidSecret::Empty(form)));
        }
        for bad in ["systemd:a/b", "systemd:..", "systemd:.", "systemd:a\\b"] {
            assert_eq!(parse(bad), Err(InvalidSecret::CredentialName));
        }
        assert_eq!(parse("dpapi:%"), Err(InvalidSecret::Protected));
        let long = |form: &str, length: usize| parse(&format!("{form}:{}", "A".repeat(length)));
        assert_eq!(long("clear", MAX_SECRET_BYTES + 1), Err(InvalidSecret::Length));
        assert!(long("clear", MAX_SECRET_BYTES).is_ok());
        assert_eq!(long("dpapi", MAX_PROTECTED_BYTES.div_ceil(3) * 4 + 4), Err(InvalidSecret::Length));
        assert_eq!(Protected::new(b"hush".to_vec()).reference(), "dpapi:aHVzaA==");
    }

    #[test]
    fn the_line_end_is_not_part_of_it() {
        for (content, password) in
            [("pass", "pass"), ("pass\n", "pass"), ("pass\r\n", "pass"), (" p ", " p "), ("p\n\n", "p\n"), ("p\r", "p\r")]
        {
            for reference in ["file:pw", "systemd:pw"] {
                assert_eq!(parse(reference).unwrap().read("it", &Given(content.as_bytes())).unwrap(), password);
            }
            assert_eq!(parse("env:PW").unwrap().read("it", &Given(content.as_bytes())).unwrap(), content);
        }
        assert_eq!(parse("dpapi:aHVzaA==").unwrap().read("it", &Given(b"")).unwrap(), "hsuh");
        assert_eq!(parse("clear: x ").unwrap().read("it", &Given(b"")).unwrap(), " x ");
    }

    #[test]
    fn what_cannot_be_read_is_tried_again_and_named() {
        let failed = |reference: &str, content: &'static [u8]| {
            let failure = parse(reference).unwrap().read("the password", &Given(content)).unwrap_err();
            assert_eq!((failure.code(), failure.disposition()), (Code::SecretUnusable, crate::failure::Disposition::Retry));
            failure.report()
        };
        assert!(failed("env:OTHER", b"").contains("the password (env:OTHER) cannot be used"));
        assert!(failed("env:OTHER", b"").contains("no variable OTHER"));
        assert!(failed("systemd:other", b"").contains("there is none"));
        assert!(failed("file:pw", &[0xff]).contains("UTF-8"));
        assert!(failed("dpapi:/w==", b"").contains("UTF-8"));
        static LONG: [u8; MAX_SECRET_BYTES + 1] = [b'x'; MAX_SECRET_BYTES + 1];
        assert!(failed("file:pw", &LONG).contains("at most 4096 bytes"));
    }

    #[test]
    fn no_form_of_it_shows_a_password() {
        for reference in ["clear:hunter2", "dpapi:aHVudGVyMg=="] {
            let secret = parse(reference).unwrap();
            for shown in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}")] {
                assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg") && shown.contains(HIDDEN), "{shown}");
            }
        }
        let mistake = parse("hunter2").unwrap_err();
        assert!(!format!("{mistake}{mistake:?}").contains("hunter2"));
    }
}
