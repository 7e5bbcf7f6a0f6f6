//! `[alert]`: the same section in the agent's and the relay's configuration.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use towpath_host::{ConfigMistake, Pause, SecretText, Spanned, secret};
use towpath_transfer::Secret;
use towpath_transport::webhook::parse_webhook_url;
use url::Url;

use crate::{Alert, MAX_SUMMARY_CHARS};

/// How long after it was due a run counts as missing, unless it is said.
pub const DEFAULT_LATE_AFTER: Duration = Duration::from_secs(2 * 3_600);
/// The shortest such time.
pub const LEAST_LATE_AFTER: Duration = Duration::from_secs(1);
/// The longest such time.
pub const MAX_LATE_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The most arguments of the program.
pub const MAX_ARGUMENTS: usize = 100;
/// What may stand in an argument.
const PLACEHOLDERS: [&str; 6] = ["{alert}", "{agent}", "{tenant}", "{job}", "{code}", "{summary}"];

/// `[alert]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlertConfig {
    /// The program that is told, or a name that the system finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Its arguments, with placeholders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// The web service that is told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "without_path")]
    pub webhook: Option<Url>,
    /// What signs what it is told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reference")]
    pub webhook_secret: Option<Secret>,
    /// So long after it was due a run counts as missing.
    #[serde(serialize_with = "pause")]
    pub late_after: Duration,
}

impl Default for AlertConfig {
    fn default() -> Self {
        let (program, arguments, webhook, webhook_secret) = (None, Vec::new(), None, None);
        Self { program, arguments, webhook, webhook_secret, late_after: DEFAULT_LATE_AFTER }
    }
}

/// `[alert]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Alert")]
pub struct RawAlert {
    /// The program that is told, or a name that the system finds. It gets the alert as JSON on standard input.
    program: Option<Spanned<PathBuf>>,
    /// Its arguments, without a shell; with {alert}, {agent}, {tenant}, {job}, {code} and {summary}.
    arguments: Option<Spanned<Vec<Spanned<String>>>>,
    /// The web service that is told: a POST of JSON.
    #[schemars(regex(pattern = "^https?://"))]
    webhook: Option<Spanned<String>>,
    /// Signs what the web service is told, as Standard Webhooks say.
    webhook_secret: Option<Spanned<SecretText>>,
    /// So long after it was due a run counts as missing; 2h where it is not said.
    late_after: Option<Spanned<Pause>>,
}

use secret::At;

impl RawAlert {
    /// Where the time stands, for a program that has none.
    #[must_use]
    pub fn late_after_span(&self) -> Option<Range<usize>> {
        self.late_after.as_ref().map(Spanned::span)
    }

    /// The settings, checked. Relative paths count from `folder`; `at` makes a mistake at a place.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(self, folder: &Path, at: At<'_>) -> Result<AlertConfig, ConfigMistake> {
        let program = self.program.map(|program| checked_program(&program, folder, at)).transpose()?;
        let arguments = match self.arguments {
            Some(arguments) if program.is_none() => {
                return Err(at(Some(arguments.span()), "`arguments` belong to a `program`".into()));
            }
            Some(arguments) => checked_arguments(arguments, at)?,
            None => Vec::new(),
        };
        let webhook = self.webhook.map(|url| parse_webhook_url(url.get_ref()).map_err(|why| at(Some(url.span()), why.into())));
        let webhook = webhook.transpose()?;
        if let Some(text) = self.webhook_secret.as_ref().filter(|_| webhook.is_none()) {
            return Err(at(Some(text.span()), "`webhook_secret` belongs to a `webhook`".into()));
        }
        let webhook_secret = secret::secret(self.webhook_secret, folder, at)?;
        let late_after = match self.late_after {
            None => DEFAULT_LATE_AFTER,
            Some(time) if (LEAST_LATE_AFTER..=MAX_LATE_AFTER).contains(&time.get_ref().0) => time.into_inner().0,
            Some(time) => return Err(at(Some(time.span()), "late_after must be 1s to 30d".into())),
        };
        Ok(AlertConfig { program, arguments, webhook, webhook_secret, late_after })
    }
}

fn checked_program(program: &Spanned<PathBuf>, folder: &Path, at: At<'_>) -> Result<PathBuf, ConfigMistake> {
    let named = program.get_ref();
    if named.as_os_str().is_empty() {
        return Err(at(Some(program.span()), "the program has no name".into()));
    }
    // A bare name is looked for where the system looks for programs.
    let is_bare = named.components().count() == 1 && !named.is_absolute();
    Ok(if is_bare { named.clone() } else { folder.join(named) })
}

fn checked_arguments(arguments: Spanned<Vec<Spanned<String>>>, at: At<'_>) -> Result<Vec<String>, ConfigMistake> {
    let span = arguments.span();
    let arguments = arguments.into_inner();
    if arguments.len() > MAX_ARGUMENTS {
        return Err(at(Some(span), format!("the program has more than {MAX_ARGUMENTS} arguments")));
    }
    for argument in &arguments {
        if let Some(unknown) = towpath_host::process::unknown_placeholder(argument.get_ref(), &PLACEHOLDERS) {
            let known = PLACEHOLDERS.join(", ");
            return Err(at(Some(argument.span()), format!("{unknown} is no placeholder; there are {known}")));
        }
    }
    Ok(arguments.into_iter().map(Spanned::into_inner).collect())
}

impl AlertConfig {
    /// The program's arguments for an alert. What a placeholder stands for is never looked through for placeholders.
    #[must_use]
    pub fn arguments_for(&self, alert: &Alert) -> Vec<String> {
        debug_assert!(alert.summary.chars().count() <= MAX_SUMMARY_CHARS, "summaries are bounded where they are made");
        let value = |placeholder: &str| match placeholder {
            "{alert}" => alert.alert.as_str().to_owned(),
            "{agent}" => alert.agent.to_string(),
            "{tenant}" => alert.tenant.to_string(),
            "{job}" => alert.job.as_ref().map(ToString::to_string).unwrap_or_default(),
            "{code}" => alert.code.to_string(),
            _ => alert.summary.clone(),
        };
        let filled = |argument: &String| towpath_host::process::filled(argument, &PLACEHOLDERS, value);
        self.arguments.iter().map(filled).collect()
    }
}

/// The path of a webhook is, with many services, its password.
fn without_path<S: Serializer>(url: &Option<Url>, to: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) if url.path() == "/" && url.query().is_none() => to.collect_str(&url.origin().ascii_serialization()),
        Some(url) => to.collect_str(&format!("{}/…", url.origin().ascii_serialization())),
        None => to.serialize_none(),
    }
}

fn reference<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => to.collect_str(secret),
        None => to.serialize_none(),
    }
}

fn pause<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&Pause(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default)]
        alert: RawAlert,
    }

    fn parse(text: &str) -> Result<AlertConfig, String> {
        let (file, text) = (Path::new("/etc/towpath/x.toml"), format!("[alert]\n{text}"));
        let raw: File = towpath_host::config::parse(&text, file).map_err(|mistake| mistake.to_string())?;
        let at = |span, problem: String| ConfigMistake::at(file, &text, span, problem);
        raw.alert.check(Path::new("/etc/towpath"), &at).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn the_section_has_defaults_and_hides_what_may_be_a_password() {
        assert_eq!(parse("").unwrap(), AlertConfig::default());
        let config = parse(
            "program = \"bin/tell\"\narguments = [\"-s\", \"{summary}\"]\nwebhook = \"https://x.example/hush\"\n\
             webhook_secret = \"file:secret\"\nlate_after = \"90m\"\n",
        )
        .unwrap();
        assert_eq!(config.program.as_deref(), Some(Path::new("/etc/towpath/bin/tell")));
        assert_eq!(config.webhook_secret, Some(Secret::File("/etc/towpath/secret".into())));
        let shown = toml::to_string(&config).unwrap();
        assert!(shown.contains("late_after = \"90m\"") && !shown.contains("hush"), "{shown}");
        let clear = parse("webhook = \"https://x.example\"\nwebhook_secret = \"clear:hunter2\"\n").unwrap();
        assert!(!format!("{clear:?}{}", toml::to_string(&clear).unwrap()).contains("hunter2"));
        for bad in ["\"hunter2\"", "hunter2", "[\"hunter2\"]"] {
            assert!(
                !parse(&format!("webhook = \"https://x.example\"\nwebhook_secret = {bad}\n")).unwrap_err().contains("hunter2")
            );
        }
        assert_eq!(parse("program = \"tell\"\n").unwrap().program.as_deref(), Some(Path::new("tell")));
    }

    #[test]
    fn mistakes_have_their_place() {
        let many = format!("program = \"x\"\narguments = [{}]\n", vec!["\"a\""; MAX_ARGUMENTS + 1].join(","));
        for (text, place, word) in [
            ("program = \"\"\n", ":2:11: ", "no name"),
            ("arguments = [\"x\"]\n", ":2:13: ", "belong to a `program`"),
            ("program = \"x\"\narguments = [\"{subject}\"]\n", ":3:14: ", "{subject} is no placeholder"),
            ("webhook = \"ftp://x\"\n", ":2:11: ", "looks like https://"),
            ("webhook_secret = \"env:X\"\n", ":2:18: ", "belongs to a `webhook`"),
            ("webhook = \"https://x\"\nwebhook_secret = \"hush\"\n", ":3:18: ", "file:PATH"),
            ("late_after = \"0s\"\n", ":2:14: ", "1s to 30d"),
            ("late_after = \"31d\"\n", ":2:14: ", "1s to 30d"),
            ("late_aftr = \"2h\"\n", ":2:1: ", "did you mean `late_after`"),
            (&many, ":3:13: ", "more than 100"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(place) && said.contains(word), "{said}");
        }
    }
}
