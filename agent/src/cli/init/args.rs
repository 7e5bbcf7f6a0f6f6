//! What can be answered on the command line.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use towpath_host::{Tls, config};
use towpath_transfer::{Code, Failure, JobName, failure::Result, public_key::Fingerprint};

use crate::{
    cli::args::{OutputArgs, parameter},
    config::Trust,
    setup::{Answers, NONE, SourceKind},
};

/// Set this host up: enrol it, find the ERP's tables, try everything, write the configuration.
///
/// At a terminal it asks for what is not said here. Elsewhere, or with --answers, it asks nothing: what is missing is named.
/// It may be repeated: what is there already, key, enrolment and configuration, is kept.
///
/// Example: towpath-agent init
/// Example: towpath-agent init --answers acme.toml --code - < code.txt
/// Example: towpath-agent init --code towpath1-… --source postgresql --host db --database erp --user towpath
///            --password file:/etc/towpath/erp-password --profile tryton --schedule 02:00
#[derive(Debug, ClapArgs)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct InitArgs {
    /// A TOML file with answers: the options below, with _ for -, such as `time_zone = "Europe/Berlin"`; tables as a list.
    #[arg(long, value_name = "FILE")]
    pub(super) answers: Option<PathBuf>,
    /// The enrolment code of the relay's operator, or `-` to read it from standard input.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// The proxy that leads out of this network, such as http://proxy:3128 or socks5://proxy:1080.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The user for the proxy.
    #[arg(long, value_name = "USER")]
    proxy_user: Option<String>,
    /// Where the proxy's password is: file:PATH or env:VARIABLE.
    #[arg(long, value_name = "REFERENCE")]
    proxy_password: Option<String>,
    /// Whom to believe to be the receiver: approve (a person compares its key) or first-use.
    #[arg(long, value_name = "HOW")]
    trust: Option<Trust>,
    /// The receiver's key, as its operator reads it out; it is approved where the relay names it.
    #[arg(long, value_name = "SHA256:…")]
    receiver: Option<Fingerprint>,
    /// The job's name; main where it is not said.
    #[arg(long, value_name = "NAME")]
    job: Option<JobName>,
    /// The kind of the ERP's database.
    #[arg(long, value_name = "KIND")]
    source: Option<SourceKind>,
    /// The file of an SQLite database.
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// The database server.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Its port, where it is not the usual one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The database.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The login, which should only be able to read.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Where its password is: file:PATH, env:VARIABLE, or none for a login without one.
    #[arg(long, value_name = "REFERENCE")]
    password: Option<String>,
    /// off, prefer (encrypted where the server can) or verify.
    #[arg(long, value_name = "HOW")]
    tls: Option<Tls>,
    /// The certificate authority of the database's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An ODBC connection string, without the password.
    #[arg(long, value_name = "TEXT")]
    connection: Option<String>,
    /// The folder into which the ERP puts CSV files.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Ready tables for an ERP: a name of `profile list`, a file, or none.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// A parameter of the profile; once for each.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    parameter: Vec<(String, String)>,
    /// A table to send, or * for all; once for each.
    #[arg(long, value_name = "TABLE")]
    table: Vec<String>,
    /// When it is sent: a time of day or a cron expression; none for by hand only. 02:00 where it is not said.
    #[arg(long, value_name = "WHEN")]
    schedule: Option<String>,
    /// In which time zone that is meant; this host's where it is not said.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Do not read everything once before the configuration is written.
    #[arg(long)]
    no_dry_run: bool,
    /// Send the first transfer at once, and wait until it is imported.
    #[arg(long, overrides_with = "no_send")]
    send: bool,
    /// Do not send a first transfer.
    #[arg(long)]
    no_send: bool,
    /// Install the service and start it; as root.
    #[arg(long, overrides_with = "no_service")]
    service: bool,
    /// Install no service.
    #[arg(long)]
    no_service: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl InitArgs {
    /// The answers of the command line, and those of the file where there are none here.
    ///
    /// # Errors
    /// `config-missing`, `config-invalid` of the file; where the code cannot be read from standard input.
    pub(super) fn merged(&self) -> Result<Answers> {
        let file = match &self.answers {
            Some(file) => Answers::parse(&config::read_text(file)?, file)?,
            None => Answers::default(),
        };
        let answers = Answers {
            code: self.code.clone(),
            proxy: self.proxy.clone(),
            proxy_user: self.proxy_user.clone(),
            proxy_password: self.proxy_password.clone(),
            trust: self.trust,
            receiver: self.receiver,
            job: self.job.clone(),
            source: self.source,
            path: self.path.clone(),
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            tls: self.tls,
            ca: self.ca.clone(),
            connection: self.connection.clone(),
            folder: self.folder.clone(),
            profile: self.profile.clone(),
            parameters: self.parameter.iter().cloned().collect(),
            tables: self.table.clone(),
            schedule: self.schedule.clone(),
            time_zone: self.time_zone.clone(),
            dry_run: self.no_dry_run.then_some(false),
            service: if self.service { Some(true) } else { self.no_service.then_some(false) },
            send: if self.send { Some(true) } else { self.no_send.then_some(false) },
        };
        let mut answers = answers.or(file);
        if answers.code.as_deref() == Some("-") {
            answers.code = Some(super::super::enrol::from_stdin()?);
        }
        from_here(&mut answers)?;
        Ok(answers)
    }
}

/// Paths that were typed count from the folder in which the program was started, those in the configuration from its own.
fn from_here(answers: &mut Answers) -> Result<()> {
    let absolute = |path: &std::path::Path| {
        std::path::absolute(path)
            .map_err(|error| Failure::park(Code::ConfigInvalid, format!("the path {}", path.display())).caused_by(error))
    };
    for path in [&mut answers.path, &mut answers.ca, &mut answers.folder].into_iter().flatten() {
        *path = absolute(path)?;
    }
    for secret in [&mut answers.password, &mut answers.proxy_password].into_iter().flatten() {
        if let Some(path) = secret.strip_prefix("file:") {
            *secret = format!("file:{}", absolute(path.as_ref())?.display());
        }
    }
    if let Some(profile) = answers.profile.as_mut().filter(|profile| *profile != NONE)
        && (profile.contains(['/', '\\']) || profile.ends_with(".toml"))
    {
        *profile = absolute(profile.as_ref())?.display().to_string();
    }
    Ok(())
}
