//! The ERP: where it is read, what of it, and when.

use std::sync::Arc;

use towpath_host::counted;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{NONE, SetUp, placeholder, relay::missing};
use crate::{
    cli::output,
    config::{Config, MAX_TABLES, Profile, TableConfig},
    extract::{ListedTable, list_tables},
    host::Host,
    setup::{Answers, DEFAULT_SCHEDULE, PASSWORD_FILE, SourceKind, fitting_profiles, table_config},
};

/// The most tables that are shown to be chosen from.
const MAX_SHOWN: usize = 60;
/// The answer that means that the ERP keeps its data in another way.
const OTHER: &str = "other";
/// The answer that means all tables.
const ALL: &str = "*";

impl SetUp<'_> {
    /// Names everything that is missing at once.
    pub(super) fn refuse_gaps(&self, configured: bool, enrolled: bool) -> Result<()> {
        let answers = &self.answers;
        let mut gaps = Vec::new();
        let mut need = |there: bool, flag| {
            if !there {
                gaps.push(flag);
            }
        };
        need(enrolled || answers.code.is_some(), "--code");
        if !configured {
            need(answers.source.is_some(), "--source");
            match answers.source {
                Some(SourceKind::Sqlite) => need(answers.path.is_some(), "--path"),
                Some(SourceKind::Odbc) => need(answers.connection.is_some(), "--connection"),
                Some(SourceKind::Files) => need(answers.folder.is_some(), "--folder"),
                Some(SourceKind::PostgreSql | SourceKind::MariaDb) => {
                    need(answers.database.is_some(), "--database");
                    need(answers.user.is_some(), "--user");
                    need(answers.password.is_some(), "--password (or none)");
                }
                None => {}
            }
            let chosen = !answers.tables.is_empty() || answers.profile.as_deref().is_some_and(|profile| profile != NONE);
            need(chosen, "--profile or --table");
        }
        if gaps.is_empty() { Ok(()) } else { Err(missing(&gaps)) }
    }

    /// Asks for the source until it opens. Returns the tables that it has, where it can tell.
    pub(super) async fn source(&mut self, host: &Host) -> Result<Option<Vec<ListedTable>>> {
        let mut again = false;
        loop {
            if self.dialog.is_there() {
                self.ask_source(again).await?;
            }
            let tried = async {
                let config = self.config(&[placeholder()?])?;
                let Some(job) = config.jobs.first() else { return Ok(None) };
                list_tables(&job.source, &host.files, Arc::clone(host.clock()), self.dialog.stop()).await
            };
            match tried.await {
                Ok(listed) => {
                    let found =
                        listed.as_ref().map_or_else(|| "it opens".to_owned(), |tables| counted(tables.len(), "table", "tables"));
                    output::say(&format!("the ERP can be read: {found}"));
                    return Ok(listed);
                }
                Err(failure) if self.dialog.is_there() && failure.code() != Code::Cancelled => {
                    output::say(&format!("  {}\n  help: see docs/errors/{}.md", failure.report(), failure.code()));
                    again = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Asks for what is open, or, `again`, for what leads to the source of this kind, with what was answered as the default; whoever
    /// has chosen the wrong kind says so there.
    async fn ask_source(&mut self, mut again: bool) -> Result<()> {
        loop {
            if self.answers.source.is_none() {
                let names = SourceKind::ALL.map(|kind| kind.about().to_owned());
                let chosen = self.dialog.choose("Where does the ERP keep its data?", &names).await?;
                self.answers.source = SourceKind::ALL.get(chosen).copied();
            }
            if self.ask_way(again).await? {
                return Ok(());
            }
            // Nothing that was answered for one kind belongs to another.
            self.answers = Answers {
                source: None,
                path: None,
                host: None,
                port: None,
                database: None,
                user: None,
                password: None,
                connection: None,
                folder: None,
                ..std::mem::take(&mut self.answers)
            };
            again = false;
        }
    }

    /// Asks what leads to a source of the kind that was chosen; `false` where another kind is wanted.
    async fn ask_way(&mut self, again: bool) -> Result<bool> {
        let shown = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
        match self.answers.source {
            Some(SourceKind::PostgreSql | SourceKind::MariaDb) => self.ask_server(again).await,
            Some(SourceKind::Sqlite) => {
                let known = shown(self.answers.path.take());
                let Some(path) = self.first_text("The database file", known, None, again).await? else { return Ok(false) };
                self.answers.path = Some(absolute(&path)?);
                Ok(true)
            }
            Some(SourceKind::Files) => {
                let (known, question) = (shown(self.answers.folder.take()), "The folder into which the ERP puts its CSV files");
                let Some(folder) = self.first_text(question, known, None, again).await? else { return Ok(false) };
                self.answers.folder = Some(absolute(&folder)?);
                Ok(true)
            }
            Some(SourceKind::Odbc) => {
                let known = self.answers.connection.take();
                let question = "The ODBC connection string without user and password, such as DSN=erp";
                let Some(connection) = self.first_text(question, known, None, again).await? else { return Ok(false) };
                self.answers.connection = Some(connection);
                self.ask_login(again).await.map(|()| true)
            }
            None => Ok(true),
        }
    }

    async fn ask_server(&mut self, again: bool) -> Result<bool> {
        let known = self.answers.host.take();
        let Some(host) = self.first_text("Server", known, Some("localhost"), again).await? else { return Ok(false) };
        self.answers.host = Some(host);
        if again {
            let known = self.answers.port.map(|port| port.to_string()).unwrap_or_else(|| "usual".to_owned());
            let check = |answer: &str| match answer {
                "usual" => Ok(None),
                number => number.parse().map(Some).map_err(|_| "a port is a number up to 65535".to_owned()),
            };
            self.answers.port = self.dialog.valid("Port", Some(&known), check).await?;
        }
        let known = self.answers.database.take();
        self.answers.database = Some(self.open_text("Database", known, again).await?);
        self.ask_login(again).await.map(|()| true)
    }

    async fn ask_login(&mut self, again: bool) -> Result<()> {
        let known = self.answers.user.take();
        self.answers.user = Some(self.open_text("Login (one that may only read)", known, again).await?);
        if self.answers.password.is_none() || again {
            self.answers.password = Some(self.keep_secret("Its password", PASSWORD_FILE).await?);
        }
        Ok(())
    }

    async fn open_text(&self, question: &str, known: Option<String>, again: bool) -> Result<String> {
        match known {
            Some(known) if !again => Ok(known),
            known => self.dialog.text(question, known.as_deref()).await,
        }
    }

    /// The first answer that a kind of source needs; `None` where, `again`, another kind is wanted.
    async fn first_text(
        &self,
        question: &str,
        known: Option<String>,
        usual: Option<&str>,
        again: bool,
    ) -> Result<Option<String>> {
        match known {
            Some(known) if !again => Ok(Some(known)),
            known => {
                let or = if again { format!(", or `{OTHER}` for another kind of source") } else { String::new() };
                let answer = self.dialog.text(&format!("{question}{or}"), known.as_deref().or(usual)).await?;
                Ok(Some(answer).filter(|answer| !again || answer != OTHER))
            }
        }
    }

    /// Asks for a password and keeps it where only this user can read it. Returns the reference to it.
    pub(super) async fn keep_secret(&self, question: &str, file: &str) -> Result<String> {
        let secret = self.dialog.secret(question).await?;
        if secret.is_empty() {
            return Ok(NONE.to_owned());
        }
        let folder = self.file.parent().unwrap_or(&self.file);
        let failed = |error| Failure::park(Code::FileFailed, format!("making {} failed", folder.display())).caused_by(error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(file);
        towpath_keys::write_secret(&path, secret.as_bytes())?;
        output::say(&format!("  kept in {}, readable by its owner alone", path.display()));
        Ok(format!("file:{}", path.display()))
    }

    /// The tables beside those of the profile.
    pub(super) async fn tables(&mut self, listed: &[ListedTable]) -> Result<Vec<TableConfig>> {
        if self.answers.profile.is_none() && self.answers.tables.is_empty() && self.dialog.is_there() {
            self.ask_profile(listed).await?;
        }
        if self.answers.profile.as_deref().is_some_and(|profile| profile != NONE) && self.answers.tables.is_empty() {
            return Ok(Vec::new());
        }
        if self.answers.tables.is_empty() && self.dialog.is_there() {
            self.answers.tables = self.ask_tables(listed).await?;
        }
        let all = listed.iter().map(ToString::to_string);
        let named: Vec<String> = self
            .answers
            .tables
            .iter()
            .flat_map(|name| if name == ALL { all.clone().collect() } else { vec![name.clone()] })
            .collect();
        if named.is_empty() || named.len() > MAX_TABLES {
            let message = format!("{} tables are to be sent, and a job has 1 to {MAX_TABLES}: name them", named.len());
            return Err(Failure::park(Code::ConfigInvalid, message));
        }
        named.iter().map(|name| table_config(name, listed)).collect()
    }

    async fn ask_profile(&mut self, listed: &[ListedTable]) -> Result<()> {
        let source = self.config(&[placeholder()?])?.jobs.into_iter().next().map(|job| job.source);
        let fitting = match &source {
            Some(source) => fitting_profiles(source, listed)?,
            None => Vec::new(),
        };
        for profile in fitting {
            let question = format!("This looks like {}. Use the ready tables of the profile {}?", profile.erp, profile.name);
            if self.dialog.yes(&question, true).await? {
                self.ask_parameters(&profile).await?;
                self.answers.profile = Some(profile.name);
                return Ok(());
            }
        }
        self.answers.profile = Some(NONE.to_owned());
        Ok(())
    }

    async fn ask_parameters(&mut self, profile: &Profile) -> Result<()> {
        for parameter in &profile.parameters {
            if self.answers.parameters.contains_key(&parameter.name) {
                continue;
            }
            let question = format!("{} ({}; such as {})", parameter.name, parameter.about, parameter.example);
            let value = self.dialog.text(&question, parameter.default.as_deref()).await?;
            self.answers.parameters.insert(parameter.name.clone(), value);
        }
        Ok(())
    }

    async fn ask_tables(&self, listed: &[ListedTable]) -> Result<Vec<String>> {
        for table in listed.iter().take(MAX_SHOWN) {
            output::say(&format!("  {table}"));
        }
        if listed.len() > MAX_SHOWN {
            output::say(&format!("  … and {} more", listed.len() - MAX_SHOWN));
        }
        let check = |answer: &str| {
            let names: Vec<String> = answer.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let unknown = |name: &&String| **name != ALL && listed.iter().all(|table| table.to_string() != **name);
            match names.iter().find(unknown) {
                Some(unknown) if !listed.is_empty() => Err(format!("there is no table {unknown}")),
                _ => Ok(names),
            }
        };
        let default = (!listed.is_empty() && listed.len() <= MAX_SHOWN).then_some(ALL);
        self.dialog.valid("Which tables are to be sent? Names with commas between them, or * for all", default, check).await
    }

    /// Asks when the job is sent; an answer that is no schedule is refused by the configuration itself.
    pub(super) async fn schedule(&mut self, tables: &[TableConfig]) -> Result<()> {
        if self.answers.schedule.is_none() && !self.dialog.is_there() {
            self.answers.schedule = Some(DEFAULT_SCHEDULE.to_owned());
        }
        if self.answers.schedule.is_none() {
            let question = "When is it sent? A time of day, or a cron expression such as 30 5 * * 1-5; none for by hand only";
            let check = |answer: &str| {
                let mut with = self.answers.clone();
                with.schedule = (answer != NONE).then(|| answer.to_owned());
                let text = crate::setup::configuration(&with, tables);
                Config::parse(&text, &self.file).map(|_| answer.to_owned()).map_err(|mistake| mistake.problem)
            };
            self.answers.schedule = Some(self.dialog.valid(question, Some(DEFAULT_SCHEDULE), check).await?);
        }
        self.answers.schedule = self.answers.schedule.take().filter(|schedule| schedule != NONE);
        Ok(())
    }
}

fn absolute(path: &str) -> Result<std::path::PathBuf> {
    std::path::absolute(path).map_err(|error| Failure::park(Code::ConfigInvalid, format!("the path {path}")).caused_by(error))
}
