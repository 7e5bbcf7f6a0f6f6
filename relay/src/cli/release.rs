//! `release`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use towpath_host::StateLock;
use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Code,
    failure::Result,
    release::{Package, Release, ReleaseVersion},
};
use towpath_transport::files::disk_below;

use super::{
    audit::{by_operator, noted},
    output,
};
use crate::{
    audit::{Action, Entry},
    host::Host,
    registry::{MAX_RING, Registry, ReleaseRow},
    release::Shelf,
    spool::blocking,
};

/// A release is handed to the relay, approved for ring 1, and, when that has gone well, for the next ring. An agent sees what is
/// approved for its tenant's ring, and takes it only where its own administrator has allowed that.
#[derive(Debug, Subcommand)]
pub(super) enum ReleaseCommand {
    /// Take a release into the relay's state folder: release.json, its signature and the packages. Nobody sees it yet.
    ///
    /// Approve the version that agents have now as well: they fetch its package to be able to go back.
    Add {
        /// The folder in which they lie, as cargo xtask package makes it; the relay's user must be able to read it.
        folder: PathBuf,
    },
    /// List the releases, and the rings that each is approved for.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let the agents of a ring have a release.
    Approve {
        /// The version.
        version: ReleaseVersion,
        /// The ring (towpath-relay tenant ring NAME RING).
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_RING)))]
        ring: u8,
    },
    /// Take an approval back. Agents that have the version already stay with it.
    Withdraw {
        /// The version.
        version: ReleaseVersion,
        /// The ring.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_RING)))]
        ring: u8,
    },
    /// Remove a release with its packages and its approvals.
    Remove {
        /// The version.
        version: ReleaseVersion,
    },
}

pub(super) async fn run(host: &Host, command: ReleaseCommand) -> Result<()> {
    host.prepare()?;
    match command {
        ReleaseCommand::Add { folder } => add(host, folder).await,
        ReleaseCommand::List { json } => list(host, json).await,
        ReleaseCommand::Approve { version, ring } => {
            let entry = by_operator(host, Action::ReleaseApprove).detail(format!("{version}, ring {ring}"));
            let registry = host.registry().await?;
            noted(&registry, entry, async |registry| registry.approve_release(version, ring).await).await?;
            output::say(&format!("agents of ring {ring} see release {version} from now on"));
            Ok(())
        }
        ReleaseCommand::Withdraw { version, ring } => {
            let entry = by_operator(host, Action::ReleaseWithdraw).detail(format!("{version}, ring {ring}"));
            let registry = host.registry().await?;
            noted(&registry, entry, async |registry| registry.withdraw_release(version, ring).await).await?;
            output::say(&format!("agents of ring {ring} do not see release {version} any more; who has it stays with it"));
            Ok(())
        }
        ReleaseCommand::Remove { version } => {
            let _alone = alone(host)?;
            let entry = by_operator(host, Action::ReleaseRemove).detail(version.to_string());
            remove(&host.registry().await?, shelf(host)?, entry, version).await?;
            output::say(&format!("release {version} is removed"));
            Ok(())
        }
    }
}

fn shelf(host: &Host) -> Result<Shelf> {
    let failed = |error| towpath_transport::files::file_failure("open the folder", &host.state, error);
    Ok(Shelf::new(disk_below(&host.state).map_err(failed)?, &host.state))
}

/// One command at a time changes what lies on the shelf: what one lays out before the registry knows of it is no leftover.
fn alone(host: &Host) -> Result<StateLock> {
    StateLock::take(&host.state.join("releases.lock"), "towpath-relay release")
}

async fn add(host: &Host, folder: PathBuf) -> Result<()> {
    let _alone = alone(host)?;
    let (registry, shelf) = (host.registry().await?, shelf(host)?);
    let keys = ReleaseKeys::of_this_program()?;
    let reserve = host.config.spool_limits().reserve_bytes;
    // What is known is refused before anything of it is replaced.
    let version = Shelf::version_in(&folder, &keys)?;
    let entry = by_operator(host, Action::ReleaseAdd).detail(version.to_string());
    let take = async |registry: Registry| {
        registry.check_release_room(version).await?;
        let taken = blocking(move || shelf.take(&folder, &keys, reserve)).await??;
        registry.add_release(version).await?;
        Ok(taken)
    };
    let release = noted(&registry, entry, take).await?;
    output::say(&format!(
        "release {version} is here with {}; next: towpath-relay release approve {version} --ring 1",
        packages(&release)
    ));
    Ok(())
}

/// Where an earlier removal was cut off, the registry knows nothing of the release any more, and its files are still here.
async fn remove(registry: &Registry, shelf: Shelf, entry: Entry, version: ReleaseVersion) -> Result<()> {
    let told = entry.clone();
    let remove = async move |registry: Registry| {
        let forgotten = registry.remove_release(version).await;
        if forgotten.as_ref().is_err_and(|failure| failure.code() != Code::NotFound) {
            return forgotten;
        }
        let was_here = blocking(move || shelf.remove(version)).await??;
        if !was_here {
            return forgotten;
        }
        if forgotten.is_err() {
            registry.audit_append(&[told]).await?;
        }
        Ok(())
    };
    noted(registry, entry, remove).await
}

fn packages(release: &Release) -> String {
    let names: Vec<String> = release.packages.iter().map(|Package { kind, arch, .. }| format!("{kind} ({arch})")).collect();
    names.join(", ")
}

async fn list(host: &Host, json: bool) -> Result<()> {
    let (registry, shelf) = (host.registry().await?, shelf(host)?);
    let mut shown = Vec::new();
    for row in registry.releases().await? {
        let (shelf, version) = (shelf.clone(), row.version);
        shown.push((row, blocking(move || shelf.read(version)).await??));
    }
    if json {
        let row = |(row, release): &(ReleaseRow, Release)| {
            json!({
                "version": row.version, "added": row.added, "rings": row.rings, "follows": release.follows,
                "packages": release.packages,
            })
        };
        return output::json(&shown.iter().map(row).collect::<Vec<_>>());
    }
    let row = |(row, release): &(ReleaseRow, Release)| {
        let rings: Vec<String> = row.rings.iter().map(ToString::to_string).collect();
        let rings = if rings.is_empty() { "-".to_owned() } else { rings.join(", ") };
        vec![row.version.to_string(), row.added.to_string(), rings, release.follows.to_string(), packages(release)]
    };
    let head = ["version", "added", "approved for rings", "follows", "packages"];
    output::table(&head, shown.iter().map(row).collect(), "there are no releases: towpath-relay release add FOLDER")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use towpath_transfer::clock::{ManualClock, SeededEntropy};
    use towpath_transport::files::{FileStore as _, MemoryFiles};

    use super::*;
    use crate::{audit::Who, registry::AuditFilter};

    #[tokio::test]
    async fn a_removal_that_was_cut_off_is_finished_by_the_next() {
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let registry = Registry::in_memory(Arc::new(clock), Arc::new(SeededEntropy::new(3))).await.unwrap();
        let (files, version) = (MemoryFiles::new(), "1.2.0".parse().unwrap());
        let shelf = Shelf::new(Arc::new(files.clone()), "/state".as_ref());
        let entry = || Entry::new("2026-03-01T00:00:00Z".parse().unwrap(), Who::operator(), Action::ReleaseRemove);
        let again = || remove(&registry, shelf.clone(), entry(), version);
        for is_cut_off in [false, true] {
            files.create_dir_all(&shelf.folder(version)).unwrap();
            registry.add_release(version).await.unwrap();
            if is_cut_off {
                registry.remove_release(version).await.unwrap();
            }
            again().await.unwrap();
            assert_eq!(registry.audit_rows(&AuditFilter::default(), 1).await.unwrap()[0].action, "release-remove");
            assert!(files.stat(&shelf.folder(version)).is_err());
            assert_eq!(again().await.unwrap_err().code(), Code::NotFound);
        }
    }
}
