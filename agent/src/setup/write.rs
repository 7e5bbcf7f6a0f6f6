//! The configuration file of a host that was just set up.

use std::{fmt::Write as _, path::PathBuf};

use towpath_transfer::JobName;

use super::Answers;
use crate::config::{TableConfig, Trust};

/// The file for the login's password, beside the configuration file.
pub const PASSWORD_FILE: &str = "erp-password";
/// The job's name where none is answered.
pub const DEFAULT_JOB: &str = "main";
/// When a job is sent where nothing is answered: every night.
pub const DEFAULT_SCHEDULE: &str = "02:00";
/// The answer that says that there is no profile, or no password.
pub const NONE: &str = "none";

/// The text of a configuration file with the settings that were answered, and these tables beside the profile's; everything else
/// has its default. The `profile` and the `password` of the answers are left out where they are `none`.
#[must_use]
pub fn configuration(answers: &Answers, tables: &[TableConfig]) -> String {
    let mut text = String::from(
        "# Configuration of towpath-agent.\n# Every other setting, its default and what it means: towpath-agent config example\n\
         # After a change: towpath-agent config check\n",
    );
    let mut put = |line: std::fmt::Arguments<'_>| {
        // Writing into a text does not fail.
        let _ = writeln!(text, "{line}");
    };
    if answers.trust == Some(Trust::FirstUse) {
        put(format_args!("trust = \"first-use\""));
    }
    network(answers, &mut put);
    put(format_args!("\n[[job]]\nname = {}", quoted(answers.job.as_ref().map_or(DEFAULT_JOB, JobName::as_str))));
    match &answers.schedule {
        Some(schedule) => put(format_args!("schedule = {}", quoted(schedule))),
        None => put(format_args!("# Without a schedule it is sent by hand only.")),
    }
    if let Some(zone) = &answers.time_zone {
        put(format_args!("time_zone = {}", quoted(zone)));
    }
    if let Some(profile) = answers.profile.as_deref().filter(|profile| *profile != NONE) {
        put(format_args!("profile = {}", quoted(profile)));
        if !answers.parameters.is_empty() {
            put(format_args!("\n[job.profile_parameters]"));
        }
        for (name, value) in &answers.parameters {
            put(format_args!("{} = {}", key(name), quoted(value)));
        }
    }
    put(format_args!("\n[job.source]"));
    for (name, value) in source(answers) {
        put(format_args!("{name} = {value}"));
    }
    for table in tables {
        put(format_args!("\n[[job.table]]\nname = {}", quoted(table.name.as_str())));
        if let Some(schema) = &table.schema {
            put(format_args!("schema = {}", quoted(schema)));
        }
    }
    text
}

/// How the relay is reached: its own section, where anything is said of it.
pub(super) fn network(answers: &Answers, put: &mut dyn FnMut(std::fmt::Arguments<'_>)) {
    let network = [("proxy", &answers.proxy), ("proxy_user", &answers.proxy_user), ("proxy_password", &answers.proxy_password)];
    for (number, (name, value)) in network.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).enumerate() {
        if number == 0 {
            put(format_args!("\n[network]"));
        }
        put(format_args!("{name} = {}", quoted(value)));
    }
}

/// The settings of the source. Those that its kind does not have are left to the configuration's own check.
fn source(answers: &Answers) -> Vec<(&'static str, String)> {
    let text = |text: &Option<String>| text.as_deref().map(quoted);
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| quoted(&path.display().to_string()));
    let password = answers.password.as_deref().filter(|password| *password != NONE);
    let settings = [
        ("kind", answers.source.map(|kind| quoted(kind.as_str()))),
        ("path", path(&answers.path)),
        ("host", text(&answers.host)),
        ("port", answers.port.map(|port| port.to_string())),
        ("database", text(&answers.database)),
        ("connection", text(&answers.connection)),
        ("user", text(&answers.user)),
        ("password", password.map(quoted)),
        ("tls", answers.tls.map(|tls| quoted(tls.as_str()))),
        ("ca", path(&answers.ca)),
        ("folder", path(&answers.folder)),
    ];
    settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML key.
fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{Config, SourceConfig},
        setup::{SourceKind, table_config},
    };

    fn parsed(answers: &Answers, tables: &[&str]) -> Config {
        let tables: Vec<_> = tables.iter().map(|table| table_config(table, &[]).unwrap()).collect();
        let text = configuration(answers, &tables);
        Config::parse(&text, Path::new("/etc/towpath/agent.toml")).unwrap_or_else(|mistake| panic!("{mistake}\n{text}"))
    }

    #[test]
    fn answers_become_a_configuration_that_says_no_more_than_them() {
        let answers = Answers {
            source: Some(SourceKind::PostgreSql),
            host: Some("db \"x\"\\ä".into()),
            database: Some("erp".into()),
            user: Some("reader".into()),
            password: Some("file:erp-password".into()),
            schedule: Some("02:00".into()),
            ..Answers::default()
        };
        let config = parsed(&answers, &["items", "sales.lines"]);
        let job = &config.jobs[0];
        assert_eq!((job.name.as_str(), config.trust), (DEFAULT_JOB, Trust::Approve));
        let SourceConfig::PostgreSql(server) = &job.source else { panic!("another kind") };
        assert_eq!((server.host.as_str(), server.user.as_str()), ("db \"x\"\\ä", "reader"));
        assert_eq!(server.password.as_ref().unwrap().to_string(), "file:/etc/towpath/erp-password");
        assert_eq!((job.tables[0].name.as_str(), job.tables[1].schema.as_deref()), ("items", Some("sales")));
        let text = configuration(&answers, &[]);
        assert!(!text.contains("port") && !text.contains("profile"), "{text}");
    }

    #[test]
    fn every_kind_of_source_can_be_answered() {
        let of = |source, set: &dyn Fn(&mut Answers)| {
            let mut answers = Answers { source: Some(source), trust: Some(Trust::FirstUse), ..Answers::default() };
            set(&mut answers);
            assert_eq!(parsed(&answers, &["x"]).jobs[0].source.kind(), source.as_str());
        };
        of(SourceKind::Sqlite, &|answers| answers.path = Some("C:\\ERP\\erp.db".into()));
        of(SourceKind::Odbc, &|answers| answers.connection = Some("DSN=erp".into()));
        of(SourceKind::Files, &|answers| answers.folder = Some("/srv/erp".into()));
        of(SourceKind::MariaDb, &|answers| {
            (answers.database, answers.user, answers.password) = (Some("erp".into()), Some("u".into()), Some(NONE.into()));
            answers.port = Some(3307);
        });
    }

    #[test]
    fn a_profile_goes_with_its_parameters() {
        let answers = Answers {
            source: Some(SourceKind::PostgreSql),
            database: Some("erp".into()),
            user: Some("u".into()),
            profile: Some("tryton".into()),
            parameters: [("company".to_owned(), "7".to_owned())].into(),
            ..Answers::default()
        };
        let job = &parsed(&answers, &[]).jobs[0];
        assert_eq!((job.profile.as_deref(), job.profile_parameters["company"].as_str()), (Some("tryton"), "7"));
        let none = Answers { profile: Some(NONE.into()), ..answers };
        assert_eq!(parsed(&none, &["items"]).jobs[0].profile, None);
    }
}
