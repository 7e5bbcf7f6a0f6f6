//! `update`.

use std::sync::Mutex;

use clap::Subcommand;
use serde::Serialize;
use towpath_transfer::{FileName, failure::Result};

#[cfg(any(target_os = "linux", windows))]
use super::args::{Args, NAME};
use super::{args::OutputArgs, output, quietly};
use crate::{
    config::UpdateMode,
    host::Host,
    update::{Checked, Ready, Updates},
};
#[cfg(any(target_os = "linux", windows))]
use {
    crate::{
        config::{Config, LoadedConfig},
        layout::Layout,
        update::{
            Outcome, Report, System,
            apply::{Applier, Prepared, Site},
            kept,
        },
    },
    std::sync::Arc,
    towpath_host::{
        folders,
        program::{self, Threads},
    },
    towpath_journal::system::SystemClock,
    towpath_transfer::{Clock, Code, Disposition, Failure},
};

/// Who applies updates, where the wrong one tries.
#[cfg(target_os = "linux")]
const WHO_MAY: &str = "packages are installed by root: run the same command with sudo";
/// Who applies updates, where the wrong one tries.
#[cfg(windows)]
const WHO_MAY: &str =
    "packages are installed by administrators: run the same command from a terminal that was opened as administrator";
/// Where it is told how an update goes.
const TOLD_AT: &str =
    if cfg!(windows) { "the Event Log tells more" } else { "journalctl -u towpath-agent-update-run tells more" };
/// By whom a fetched update is applied where the configuration leaves it to a person.
const BY_WHOM: &str = if cfg!(windows) { "an administrator" } else { "root" };

/// A new version comes from the relay, where its operator has approved it for this agent's tenant, and is believed by the signature of
/// whoever makes this program. `[update]` of the configuration says whether that is done by itself: see `towpath-agent config example`.
#[derive(Debug, Subcommand)]
pub(super) enum UpdateCommand {
    /// Ask the relay which version is approved for this agent, and tell it beside the one that is installed.
    Check(OutputArgs),
    /// Fetch the approved version and the package to go back to, and verify both. Nothing is installed.
    ///
    /// With `mode = "install"` in the configuration, root's part of this package is then asked to apply it.
    Download(OutputArgs),
    /// Apply what was fetched, as root: the new version, or the one before again where the new one does not work.
    #[cfg(any(target_os = "linux", windows))]
    Apply(ApplyArgs),
}

#[cfg(any(target_os = "linux", windows))]
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct ApplyArgs {
    /// Only as the configuration allows it: with `mode = "install"`, and in the window. The package's own service says this.
    #[arg(long)]
    pub(super) as_configured: bool,
    /// Go on with the update that is under way: what the service does that was made for it.
    #[arg(long, hide = true, conflicts_with = "as_configured")]
    pub(super) go_on: bool,
}

pub(super) async fn run(host: &Host, command: &UpdateCommand) -> Result<()> {
    match command {
        UpdateCommand::Check(args) => check(host, args).await,
        UpdateCommand::Download(args) => download(host, args).await,
        #[cfg(any(target_os = "linux", windows))]
        UpdateCommand::Apply(_) => Ok(()),
    }
}

async fn check(host: &Host, args: &OutputArgs) -> Result<()> {
    let found = quietly(host, async |open| Updates::of(open.parts.clone()).check().await).await?;
    if args.json {
        return output::json(&found);
    }
    output::line(&told(&found).join("\n"))
}

/// What was found, a line each.
fn told(found: &Checked) -> Vec<String> {
    let list = |versions: &[_]| versions.iter().map(ToString::to_string).collect::<Vec<String>>().join(", ");
    let mut lines =
        vec![format!("installed: {} ({} for {})", found.installed.version, found.installed.kind, found.installed.arch)];
    let approved = if found.approved.is_empty() { "nothing".to_owned() } else { list(&found.approved) };
    lines.push(format!("approved at the relay: {approved}"));
    if !found.refused.is_empty() {
        lines.push(format!("did not work here: {}", list(&found.refused)));
    }
    lines.extend(found.last.as_ref().map(ToString::to_string));
    lines.push(match (found.next, found.fetched) {
        (None, _) => "there is nothing newer to follow".to_owned(),
        (Some(next), true) => format!("{next} is fetched and verified"),
        (Some(next), false) => format!("{next} can be fetched: towpath-agent update download"),
    });
    lines
}

#[derive(Serialize)]
struct Downloaded {
    ready: Option<Ready>,
    /// Whether root's part was asked to apply it.
    asked: bool,
}

async fn download(host: &Host, args: &OutputArgs) -> Result<()> {
    let shown = Mutex::new(None);
    let tell = |name: &FileName, done: u64, total: u64| {
        let tenth = done.saturating_mul(10) / total.max(1);
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !args.json && shown.replace((name.clone(), tenth)) != Some((name.clone(), tenth)) {
            output::say(&format!("{name}: {}%", tenth * 10));
        }
    };
    let install = host.settings().update.mode == UpdateMode::Install;
    let ready = quietly(host, async |open| {
        let updates = Updates::of(open.parts.clone());
        let ready = updates.download(&tell).await?;
        if let Some(ready) = ready.filter(|_| install) {
            updates.request(ready.version).await?;
        }
        Ok(ready)
    })
    .await?;
    if args.json {
        return output::json(&Downloaded { ready, asked: install && ready.is_some() });
    }
    output::line(&match ready {
        None => "there is nothing newer to follow".to_owned(),
        Some(Ready { version, .. }) if install => format!("{version} is fetched and verified; it is applied in the window"),
        Some(Ready { version, .. }) => {
            format!("{version} is fetched and verified; apply it as {BY_WHOM}: towpath-agent update apply")
        }
    })
}

/// Applies an update; on Linux the one command that stays root.
#[cfg(any(target_os = "linux", windows))]
pub(super) fn apply(args: &Args, asked: ApplyArgs) -> Result<()> {
    // Whoever may not write there may not install packages either.
    kept::claim(&System::default().kept).map_err(|failure| Failure::park(Code::UpdateRefused, WHO_MAY).caused_by(failure))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    if asked.go_on {
        let layout = Layout::new(folders::state(NAME, [args.state.as_deref(), None])?);
        let applier = Applier::of_this_host(&layout, clock)?;
        return program::block_on(Threads::One, async { applier.go_on(&program::stop_signal()?).await.map(drop) });
    }
    let (config_file, config) = match LoadedConfig::read(&args.config_file()?) {
        Err(failure) if failure.code() == Code::ConfigMissing => (args.config_file()?, Config::parse("", "agent.toml".as_ref())?),
        other => other.map(|loaded| (loaded.file, loaded.config))?,
    };
    let layout = Layout::new(args.state_folder(&config)?);
    let applier = Applier::of_this_host(&layout, clock)?;
    let site = Site { layout, config_file, config: config.update, by_hand: !asked.as_configured };
    program::block_on(Threads::One, async {
        let prepared = match applier.prepare(&site).await {
            Err(failure) => return waits(failure, asked).and_then(|told| output::line(&told)),
            Ok(prepared) => prepared,
        };
        match prepared {
            Prepared::Nothing => output::line("there is nothing newer to apply; see: towpath-agent update check"),
            Prepared::NotNow => output::line("the configuration does not allow it now"),
            Prepared::UnderWay => output::line("an update is being applied already"),
            Prepared::Begun(version) if asked.as_configured => output::line(&format!("{version} is being applied")),
            Prepared::Begun(version) => {
                output::say(&format!("{version} is being applied; {TOLD_AT}"));
                ended(&applier.follow().await?)
            }
        }
    })
}

/// What the package's own service says of an update that cannot begin now and perhaps later: that is no failure of the service. That
/// the service manager does not begin what is ready is one.
#[cfg(any(target_os = "linux", windows))]
fn waits(failure: Failure, asked: ApplyArgs) -> Result<String> {
    let may_pass = failure.disposition() == Disposition::Retry && failure.code() != Code::ServiceFailed;
    if asked.as_configured && may_pass { Ok(format!("not now: {}", failure.report())) } else { Err(failure) }
}

/// Tells how what was begun has ended.
#[cfg(any(target_os = "linux", windows))]
fn ended(report: &Report) -> Result<()> {
    match (&report.postponed, &report.last) {
        (Some(waits), _) => Err(Failure::retry(Code::UpdateRefused, format!("the update waits: {}", waits.why))),
        (None, Some(last)) => match last.outcome {
            Outcome::Installed => output::line(&last.to_string()),
            Outcome::RolledBack => Err(Failure::park(Code::UpdateRolledBack, last.to_string())),
            Outcome::Failed => Err(Failure::park(Code::UpdateFailed, last.to_string())),
        },
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::release::{PackageKind, ReleaseVersion};

    use super::*;
    use crate::update::{Attempt, Installed, Outcome};

    #[cfg(any(target_os = "linux", windows))]
    #[test]
    fn what_may_pass_is_no_failure_of_the_service_that_asks_again() {
        let full = || Failure::retry(Code::DiskFull, "packages need 9 bytes");
        let refused = || Failure::park(Code::DigestMismatch, "it is another package");
        let asked = |as_configured| ApplyArgs { as_configured, go_on: false };
        assert_eq!(waits(full(), asked(true)).unwrap(), "not now: packages need 9 bytes [disk-full]");
        assert_eq!(waits(refused(), asked(true)).unwrap_err().code(), Code::DigestMismatch);
        assert_eq!(waits(full(), asked(false)).unwrap_err().code(), Code::DiskFull, "a person wants to know");
        let unstarted = Failure::retry(Code::ServiceFailed, "systemctl start failed");
        assert_eq!(waits(unstarted, asked(true)).unwrap_err().code(), Code::ServiceFailed);
    }

    #[test]
    fn what_was_found_is_told_to_people() {
        let version = |text: &str| text.parse::<ReleaseVersion>().unwrap();
        let installed = Installed { kind: PackageKind::Deb, version: version("1.0.0"), arch: "x86_64".into() };
        let last = Attempt {
            from: version("1.0.0"),
            to: version("1.1.0"),
            at: "2026-07-01T02:00:00Z".parse().unwrap(),
            outcome: Outcome::RolledBack,
            why: "it did not answer".into(),
        };
        let mut found = Checked {
            installed,
            approved: vec![version("1.0.0"), version("1.1.0"), version("1.2.0")],
            next: Some(version("1.2.0")),
            fetched: false,
            refused: vec![version("1.1.0")],
            last: Some(last),
        };
        assert_eq!(
            told(&found),
            [
                "installed: 1.0.0 (deb for x86_64)",
                "approved at the relay: 1.0.0, 1.1.0, 1.2.0",
                "did not work here: 1.1.0",
                "update to 1.1.0 undone at 2026-07-01T02:00:00Z, 1.0.0 runs again: it did not answer",
                "1.2.0 can be fetched: towpath-agent update download",
            ]
        );
        found.fetched = true;
        assert_eq!(told(&found).last().unwrap(), "1.2.0 is fetched and verified");
        found.next = None;
        assert_eq!(told(&found).last().unwrap(), "there is nothing newer to follow");
    }
}
