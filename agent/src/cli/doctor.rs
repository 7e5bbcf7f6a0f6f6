//! `doctor`: checks this host and says what to do.

use std::path::Path;

use towpath_host::program::{self, Threads};
use towpath_transfer::{Failure, failure::Result};

use super::{
    args::{Args, DoctorArgs},
    base, output, owner,
};
use crate::{
    config::{Config, LoadedConfig},
    doctor::{Check, Report, Visit, examine},
    host::Host,
};

pub(super) fn run(args: &Args, asked: &DoctorArgs) -> Result<()> {
    let (host, unreadable) = look(args)?;
    let visit = Visit { host: &host, unreadable: unreadable.as_ref(), offline: asked.offline };
    let json = asked.output.json;
    let report =
        program::block_on(Threads::Many, async { examine(&visit, &mut |check| if json { Ok(()) } else { tell(check) }).await })?;
    if json {
        output::json(&report)?;
    } else {
        output::line(&sum(&report))?;
    }
    report.outcome()
}

/// The host as far as it can be looked at, and what is wrong with its configuration. Makes nothing.
pub(super) fn look(args: &Args) -> Result<(Host, Option<Failure>)> {
    // Nothing that is wrong with the configuration hides what else is.
    let file = args.config_file().and_then(|file| {
        let failed = |error| {
            towpath_transfer::Failure::park(towpath_transfer::Code::ConfigInvalid, "the configuration's path").caused_by(error)
        };
        std::path::absolute(&file).map_err(failed)
    });
    let (config, unreadable) = match file.and_then(|file| LoadedConfig::read(&file)) {
        Ok(config) => (config, None),
        Err(failure) => {
            let file = args.config_file().unwrap_or_default();
            (LoadedConfig { config: Config::parse("", Path::new("agent.toml"))?, file }, Some(failure))
        }
    };
    let state = args.state_folder(&config.config)?;
    owner::become_owner_of(&state)?;
    Ok((Host::look(config, &state, base()?), unreadable))
}

pub(super) fn tell(check: &Check) -> Result<()> {
    let code = check.code.map(|code| format!(" [{code}]")).unwrap_or_default();
    output::hint(&format!("{} {}: {}{code}", check.outcome.sign(), check.title, check.found))?;
    match &check.remedy {
        Some(remedy) => output::hint(&format!("    tried: {}\n    to do: {remedy}", check.tried)),
        None => Ok(()),
    }
}

fn sum(report: &Report) -> String {
    let Report { passed, warnings, failed, skipped, checks, .. } = report;
    format!("{} checks: {passed} ✓, {warnings} !, {failed} ✗, {skipped} left out", checks.len())
}
