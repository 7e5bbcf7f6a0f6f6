//! How a configuration file refers to a password.

use std::{env, fmt, ops::Range, path::Path};

use serde::{Deserialize, Deserializer, de};
use towpath_transfer::{
    Secret,
    secret::{HIDDEN, InvalidSecret},
};

use crate::{ConfigMistake, Spanned};

/// Makes a mistake at a place.
pub type At<'a> = &'a dyn Fn(Option<Range<usize>>, String) -> ConfigMistake;

/// What a configuration file says where a reference to a password belongs: perhaps the password itself, so it is never shown, and
/// a value of another type is refused without saying which.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The text, to be read as a [`Secret`] and not to be shown.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
            fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
            fn visit_u128<E: de::Error>(self, _: u128) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretText, E> {
                Err(E::custom(InvalidSecret::Form))
            }
        }

        from.deserialize_any(Visitor)
    }
}

/// Reads where a password is; a relative path counts from `folder`.
///
/// # Errors
/// Where it is none of a [`Secret`]'s forms; the mistake does not have the text in it.
pub fn secret(password: Option<Spanned<SecretText>>, folder: &Path, at: At<'_>) -> Result<Option<Secret>, ConfigMistake> {
    let Some(password) = password else { return Ok(None) };
    let parsed = Secret::parse(password.get_ref().text(), folder);
    parsed.map(Some).map_err(|why| at(Some(password.span()), why.to_string()))
}

/// The variable in which systemd names the folder with a service's credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Whether this process cannot see a password, because systemd passes it to the service alone and this is not the service.
#[must_use]
pub fn is_unseen(secret: &Secret) -> bool {
    matches!(secret, Secret::Credential(_)) && env::var_os(CREDENTIALS).is_none()
}

/// A line for each password that this process cannot see, so that nobody takes what was not looked at for well. Each comes with its
/// setting; `remedy` says who looks at it.
#[must_use]
pub fn unseen<'a>(secrets: impl IntoIterator<Item = (impl fmt::Display, &'a Secret)>, remedy: &str) -> Vec<String> {
    let unseen = secrets.into_iter().filter(|(_, secret)| is_unseen(secret));
    unseen
        .map(|(setting, secret)| {
            format!("{setting} ({secret}) was not looked at: systemd passes it to the service alone; {remedy}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_only_the_service_sees_is_said_not_to_be_looked_at() {
        let (file, passed) = (Secret::File("/etc/pw".into()), Secret::Credential("erp".to_owned()));
        let told = unseen([("[import] password", &passed), ("[network] proxy_password", &file)], "ask it");
        assert_eq!(told, ["[import] password (systemd:erp) was not looked at: systemd passes it to the service alone; ask it"]);
        assert!(is_unseen(&passed) && !is_unseen(&file));
    }

    #[derive(Debug, Deserialize)]
    struct Sample {
        password: Option<Spanned<SecretText>>,
    }

    fn read(value: &str) -> Result<Option<Secret>, ConfigMistake> {
        let text = format!("\npassword = {value}\n");
        let sample: Sample = config::parse(&text, Path::new("x.toml"))?;
        assert!(!format!("{sample:?}").contains("hunter2"));
        secret(sample.password, Path::new("/etc"), &|span, problem| ConfigMistake::at("x.toml", &text, span, problem))
    }

    #[test]
    fn a_mistake_has_its_place_and_the_forms_and_never_the_value() {
        assert_eq!(read("\"file:pw\""), Ok(Some(Secret::File("/etc/pw".into()))));
        for value in [
            "\"hunter2\"",
            "\"plain:hunter2\"",
            "86042",
            "-86042",
            "8.6042",
            "true",
            "\"dpapi:hunter2!\"",
            "\"systemd:hunter2/\"",
        ] {
            let mistake = read(value).unwrap_err();
            let shown = format!("{mistake} {mistake:?}");
            assert_eq!((mistake.line, mistake.column), (2, 12), "{shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("6042") && !shown.contains("true"), "{shown}");
        }
        let said = read("\"hunter2\"").unwrap_err().to_string();
        for form in ["file:PATH", "env:NAME", "systemd:NAME", "dpapi:BASE64", "clear:TEXT"] {
            assert!(said.contains(form), "{said}");
        }
        for value in ["[\"hunter2\"]", "{ a = \"hunter2\" }", "2026-01-01"] {
            let said = read(value).unwrap_err().to_string();
            assert!(!said.contains("hunter2") && !said.contains("2026"), "{said}");
        }
    }
}
