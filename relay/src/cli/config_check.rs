//! `config check`: what a configuration that can be read names besides, and how it is told.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use towpath_host::{
    config::{self, CheckReport},
    counted, output, owner, secret,
};
use towpath_journal::system::SystemClock;
use towpath_transfer::{Clock as _, failure::Result};

use crate::{config::Config, door::tls::Certificate};

/// A certificate that ends within so many days is warned of: what renews certificates does so earlier.
const WARN_DAYS: i64 = 14;

/// What `config check --json` prints of a configuration that is valid.
#[derive(Serialize)]
struct CheckView<'a> {
    #[serde(flatten)]
    report: CheckReport<'a>,
    /// The certificate of the file, where the relay does not sign its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Checked>,
}

/// A certificate that can be served.
#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    good_until: Timestamp,
}

/// Loads what the configuration names as `serve` does, and says that all is well.
///
/// # Errors
/// Those of [`Certificate::read`]; where this process cannot become the user of the service.
pub(super) fn tell(config: &Config, file: &Path, state: &Path, json: bool) -> Result<()> {
    let certificate = certificate(config, state)?;
    let webhook = config.alert.webhook_secret.iter().map(|secret| ("[alert] webhook_secret", secret));
    let remedy = "its log says so where an alert cannot be told for that (journalctl -u towpath-relay)";
    let unseen = &secret::unseen(webhook, remedy);
    let now = SystemClock::new().now();
    let warning = certificate.as_ref().and_then(|checked| checked.warning(now));
    if json {
        let report = CheckReport { file, valid: true, mistakes: &[], warnings: warning.as_slice(), unseen };
        return output::json(&CheckView { report, certificate });
    }
    config::tell(warning.as_slice(), unseen);
    output::line(&format!("the configuration is valid; the state lies in {}", state.display()))?;
    certificate.filter(|_| warning.is_none()).map_or(Ok(()), |checked| output::line(&checked.told(now)))
}

/// The certificate that is configured, as the service can read it.
fn certificate(config: &Config, state: &Path) -> Result<Option<Checked>> {
    let tls = &config.tls;
    let (Some(file), Some(key)) = (&tls.certificate, &tls.key) else { return Ok(None) };
    // Root reads what the service may not.
    owner::become_owner_of(state)?;
    let good_until = Certificate::read(file, key, tls.pin)?.good_until;
    Ok(Some(Checked { file: file.clone(), good_until }))
}

impl Checked {
    /// Whole days from now until its end; fewer than 0 after that.
    fn days(&self, now: Timestamp) -> i64 {
        self.good_until.duration_since(now).as_hours().div_euclid(24)
    }

    fn told(&self, now: Timestamp) -> String {
        let days = usize::try_from(self.days(now)).unwrap_or(0);
        let (file, until) = (self.file.display(), self.good_until);
        format!("the certificate {file} is good until {until}, {} from now", counted(days, "day", "days"))
    }

    fn warning(&self, now: Timestamp) -> Option<String> {
        let (file, until) = (self.file.display(), self.good_until);
        let then = "put the renewed one in its place, which a running relay takes up by itself";
        if until <= now {
            return Some(format!(
                "the certificate {file} has ended at {until}, and who does not pin it refuses the relay: {then}"
            ));
        }
        (self.days(now) < WARN_DAYS).then(|| format!("{}: {then}", self.told(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_before_it_ends() {
        let checked = Checked { file: "relay.crt".into(), good_until: "2026-03-15T00:00:00Z".parse().unwrap() };
        let warned = |now: &str| checked.warning(now.parse().unwrap());
        assert_eq!(warned("2026-03-01T00:00:00Z"), None);
        let soon = warned("2026-03-01T00:00:01Z").unwrap();
        assert!(soon.starts_with("the certificate relay.crt is good until 2026-03-15T00:00:00Z, 13 days from now: "), "{soon}");
        assert!(warned("2026-03-15T00:00:00Z").unwrap().contains("has ended at 2026-03-15T00:00:00Z"));
        assert!(checked.told("2026-03-13T23:00:00Z".parse().unwrap()).ends_with(", 1 day from now"));
    }
}
