//! Takes out of a text what may not leave the host: every secret that is known here, and what looks like one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::Regex;
use towpath_transfer::{Code, Failure, failure::Result};

/// What stands in the place of what was taken out.
pub const REMOVED: &str = "(removed)";

/// What looks like a secret, and what of it is kept: the groups that the replacement names.
const SHAPES: &[(&str, &str)] = &[
    // Enrolment codes.
    (r"towpath1-[A-Za-z0-9_-]+", "towpath1-(removed)"),
    // Private keys of every kind, also cut off, and also with line breaks written as \n.
    (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)", "(removed)"),
    // JSON Web Tokens.
    (r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", "(removed)"),
    // User and password in a URL.
    (r"://[^/\s@:]*:[^/\s@]*@", "://(removed)@"),
    // Secrets of webhooks.
    (r"wh(sec|sk)_[A-Za-z0-9+/=_-]+", "(removed)"),
    // Passwords in connection strings, headers and settings.
    (
        r#"(?i)\b(pwd|password|passwd|secret|token|authorization)(["']?\s*[=:]\s*)(basic |bearer )?(["']?)[^\s;"',}]+"#,
        "$1$2$4(removed)",
    ),
    // A value that stands in the place of another kind of value, such as all arguments of a program in one text.
    (r"invalid (type|value): string .*?, expected", "invalid $1: string (removed), expected"),
    (r"clear:[^\s;,}]+", "clear:(removed)"),
    (r"dpapi:[A-Za-z0-9+/=]+", "dpapi:(removed)"),
];

/// Takes secrets out of texts.
#[derive(Debug)]
pub struct Scrubber {
    /// The longest first, so that one which begins another is not cut out of it.
    known: Vec<String>,
    shapes: Vec<(Regex, &'static str)>,
}

impl Scrubber {
    /// Takes out these secrets in every form in which they may be written, and what looks like one.
    ///
    /// # Errors
    /// Never, while the tests of this module pass.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut known: Vec<String> = secrets.into_iter().filter(|secret| !secret.trim().is_empty()).flat_map(forms).collect();
        known.sort_by_key(|form| std::cmp::Reverse(form.len()));
        known.dedup();
        let shape = |(pattern, kept): &(&str, &'static str)| {
            let pattern = Regex::new(pattern);
            Ok((pattern.map_err(|error| Failure::park(Code::Internal, "the shape of a secret").caused_by(error))?, *kept))
        };
        Ok(Self { known, shapes: SHAPES.iter().map(shape).collect::<Result<_>>()? })
    }

    /// The text without them.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.known {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), REMOVED);
            }
        }
        for (shape, kept) in &self.shapes {
            if let std::borrow::Cow::Owned(changed) = shape.replace_all(&text, *kept) {
                text = changed;
            }
        }
        text
    }
}

/// A secret as it is, in JSON, in a URL, and in Base64; of several lines each line is one.
fn forms(secret: String) -> Vec<String> {
    let json = serde_json::to_string(&secret).unwrap_or_default();
    let json = json.trim_matches('"').to_owned();
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = url.replace('+', "%20");
    let lines: Vec<String> = match secret.lines().count() {
        0 | 1 => Vec::new(),
        _ => secret
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("-----"))
            .map(str::to_owned)
            .collect(),
    };
    let base64 = STANDARD.encode(secret.as_bytes());
    [secret, json, url, percent, base64].into_iter().chain(lines).filter(|form| !form.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_secrets_go_in_every_form() {
        let scrubber = Scrubber::new(["p\"ä ss/1".to_owned(), String::new(), "p\"ä ss/1 longer".to_owned()]).unwrap();
        let text = "a p\"ä ss/1 b p\\\"ä ss/1 c p%22%C3%A4+ss%2F1 d p%22%C3%A4%20ss%2F1 e cCLDpCBzcy8x f p\"ä ss/1 longer g";
        assert_eq!(scrubber.clean(text), "a (removed) b (removed) c (removed) d (removed) e (removed) f (removed) g");
        assert_eq!(scrubber.clean("nothing of it"), "nothing of it");
    }

    #[test]
    fn what_looks_like_a_secret_goes_though_nobody_knows_it() {
        let scrubber =
            Scrubber::new(["-----BEGIN X PRIVATE KEY-----\nAAAABBBB\n-----END X PRIVATE KEY-----".to_owned()]).unwrap();
        for (text, clean) in [
            ("code towpath1-eyJ1_-x.", "code towpath1-(removed)."),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb\n-----END OPENSSH PRIVATE KEY-----\nrest", "(removed)\nrest"),
            ("-----BEGIN PRIVATE KEY-----\\nMIIE", "(removed)"),
            ("Bearer eyJhbGciOi.eyJpc3Mi.c2ln-_ end", "Bearer (removed) end"),
            ("http://user:pw@proxy:3128/", "http://(removed)@proxy:3128/"),
            ("https://relay.example.com:8443/a", "https://relay.example.com:8443/a"),
            ("Driver=x;UID=u;PWD=hunter2;Server=s", "Driver=x;UID=u;PWD=(removed);Server=s"),
            ("\"password\": \"hunter2\", \"user\": \"u\"", "\"password\": \"(removed)\", \"user\": \"u\""),
            ("Authorization: Basic dTpw", "Authorization: (removed)"),
            (
                "invalid type: string \"-u u, hunter2\", expected a sequence",
                "invalid type: string (removed), expected a sequence",
            ),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "(removed)"),
            ("a line of a key: AAAABBBB", "a line of a key: (removed)"),
        ] {
            assert_eq!(scrubber.clean(text), clean, "{text}");
        }
    }
}
