//! What lies on this host: configuration, state folder, key, journal, space, enrolment.

use std::{fs, io, path::Path, time::Duration};

use towpath_host::counted;
use towpath_journal::SqliteJournal;
use towpath_keys::{AllowedSigners, Identity, shell_quoted};
use towpath_transfer::{Code, Failure, TransferId, failure::Result};

use super::{
    Told, Visit,
    check::{Check, Subject, said},
    remedy,
};
use crate::{
    blocking::blocking,
    config::Config,
    enrolment::Enrolment,
    host::{Host, not_enrolled},
    small_file,
    trust::pinned_receivers,
    uplink::folder,
};

/// How long the disk may take for one check.
pub const DISK_TIMEOUT: Duration = Duration::from_secs(10);
/// How many of the last transfers tell how much space one needs.
pub const LAST_TRANSFERS: usize = 5;
/// Free space is wanted for so many transfers of the size of the largest of those.
pub const SPACE_FACTOR: u64 = 3;
/// Less free space than this is worth a warning, whatever the transfers were like, in bytes.
pub const MIN_FREE_BYTES: u64 = 1024 * 1024 * 1024;
/// The most transfers' folders that are looked through for the last ones.
const MAX_FOLDERS: usize = 10_000;

/// What the state folder has, for the checks that build on it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) identity: Option<Identity>,
    pub(super) enrolment: Option<Enrolment>,
    pub(super) journal: Option<SqliteJournal>,
}

/// The checks, and what they have found.
pub(super) async fn checks(visit: &Visit<'_>, told: &mut Told<'_>) -> Result<State> {
    let host = visit.host;
    let mut state = State::default();
    told.add(configuration(host, visit.unreadable))?;
    told.add(in_time(host, folder_subject(host), folder_check).await)?;
    let (check, identity) = key(host);
    state.identity = identity;
    told.add(check)?;
    let subject = Subject::new("machine", "machine", "comparing this machine with the one that the journal belongs to");
    let check = subject.within(&**host.clock(), DISK_TIMEOUT, async |subject| machine(host, subject, &mut state.journal).await);
    let check = check.await;
    told.add(check)?;
    let tried = format!("asking for the free space of {}", host.layout.state().display());
    told.add(in_time(host, Subject::new("disk-space", "disk space", tried), space).await)?;
    let (check, enrolment) = enrolled(host);
    state.enrolment = enrolment;
    told.add(check)?;
    told.add(receiver(host, state.enrolment.as_ref()))?;
    Ok(state)
}

/// Runs a check of the disk beside the runtime, because a drive may hang.
async fn in_time(host: &Host, subject: Subject, look: fn(&Host, Subject) -> Check) -> Check {
    let on_disk = host.clone();
    subject
        .within(&**host.clock(), DISK_TIMEOUT, async move |subject| {
            let late = subject.clone();
            blocking(move || Ok(look(&on_disk, subject))).await.unwrap_or_else(|failure| late.failed(&failure))
        })
        .await
}

fn configuration(host: &Host, unreadable: Option<&Failure>) -> Check {
    let file = host.config.file.display();
    let subject = Subject::new("configuration", "configuration", format!("reading {file}"));
    if let Some(failure) = unreadable {
        return subject.failed(failure);
    }
    let Config { jobs, deliveries, .. } = host.settings();
    let tables: usize = jobs.iter().map(|job| job.tables.len()).sum();
    let jobs_told = counted(jobs.len(), "job", "jobs");
    let (tables, deliveries_told) = (counted(tables, "table", "tables"), counted(deliveries.len(), "delivery", "deliveries"));
    let found = format!("{file}: {jobs_told}, {tables}, {deliveries_told}");
    if jobs.is_empty() && deliveries.is_empty() {
        return subject.warning(None, format!("{found}: there is nothing to do"), "add a [[job]] or a [[delivery]]");
    }
    let warnings = host.settings().warnings();
    if !warnings.is_empty() {
        return subject.warning(None, format!("{found}; {}", warnings.join("; ")), "see: towpath-agent config check");
    }
    subject.ok(found)
}

fn folder_subject(host: &Host) -> Subject {
    Subject::new("state-folder", "state folder", format!("looking at {}", host.layout.state().display()))
}

fn folder_check(host: &Host, subject: Subject) -> Check {
    let state = host.layout.state();
    match fs::metadata(state) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return subject.wrong(Code::FileFailed, format!("{} is no folder", state.display()), "name another one with --state");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return subject.skipped(format!("{} is not there yet; it is made by: towpath-agent enrol CODE", state.display()));
        }
        Err(error) => {
            let remedy = "run doctor as the user that the agent runs as, or as the administrator";
            return subject.wrong(Code::FileFailed, format!("{}: {error}", state.display()), remedy);
        }
    };
    if let Err(error) = fs::read_dir(state) {
        let remedy = "run doctor as the user that the agent runs as, or as the administrator";
        return subject.wrong(Code::FileFailed, format!("{} cannot be read: {error}", state.display()), remedy);
    }
    match open_to_others(state) {
        Ok(None) => {}
        Ok(Some((found, remedy))) => return subject.warning(Some(Code::KeyPermissions), found, remedy),
        Err(error) => {
            let found = format!("who may open {} is not known: {error}", state.display());
            return subject.wrong(Code::FileFailed, found, remedy::of(Code::FileFailed));
        }
    }
    subject.ok(format!("{} is there, for its owner alone", state.display()))
}

/// What is wrong and what to do where others than its owner may open a folder.
#[cfg(unix)]
fn open_to_others(folder: &Path) -> io::Result<Option<(String, String)>> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = fs::metadata(folder)?.permissions().mode() & 0o777;
    let found = || {
        (format!("{} is open to other users (mode {mode:04o})", folder.display()), format!("chmod 700 {}", shell_quoted(folder)))
    };
    Ok((mode & 0o077 != 0).then(found))
}

/// As on other systems; administrators and the service may open it as well. Whoever owns it may always change who may.
#[cfg(windows)]
fn open_to_others(folder: &Path) -> io::Result<Option<(String, String)>> {
    use towpath_platform::acl;

    let (shown, quoted) = (folder.display(), shell_quoted(folder));
    if !acl::is_of_trusted(folder)? {
        let remedy = format!("look at what lies there, and as an administrator run: takeown /a /f {quoted}");
        return Ok(Some((format!("{shown} belongs to another user"), remedy)));
    }
    if acl::is_private(folder)? {
        return Ok(None);
    }
    let rights = r#"/inheritance:r /grant "*S-1-5-18:(OI)(CI)F" "*S-1-5-32-544:(OI)(CI)F" "*S-1-3-4:(OI)(CI)F""#;
    let remedy = format!(
        "where the service is installed, run towpath-agent service install once more; else icacls {quoted} /reset, and then \
         icacls {quoted} {rights}"
    );
    Ok(Some((format!("{shown} is open to other users"), remedy)))
}

fn key(host: &Host) -> (Check, Option<Identity>) {
    let subject = Subject::new("key", "key", format!("reading {}", host.layout.key().display()));
    match host.identity() {
        Ok(identity) => (subject.ok(identity.fingerprint().to_string()), Some(identity)),
        Err(failure) if failure.code() == Code::KeyMissing && !small_file::exists(&*host.files, &host.layout.enrolment()) => {
            (subject.skipped("there is none yet; it is made by: towpath-agent enrol CODE"), None)
        }
        Err(failure) => (subject.failed(&failure), None),
    }
}

async fn machine(host: &Host, subject: Subject, kept: &mut Option<SqliteJournal>) -> Check {
    let journal = match host.look_at_journal().await {
        Ok(Some(journal)) => journal,
        Ok(None) => return subject.skipped("there is no journal yet"),
        Err(failure) => return subject.failed(&failure),
    };
    let check = match host.check_machine(&journal).await {
        Ok(()) => subject.ok("the journal belongs to this machine"),
        Err(failure) => subject.failed(&failure),
    };
    *kept = Some(journal);
    check
}

fn space(host: &Host, subject: Subject) -> Check {
    let state = host.layout.state();
    // A folder that is not there yet will lie where its nearest parent is.
    let there = state.ancestors().find(|folder| folder.is_dir()).unwrap_or(state);
    let free = match host.files.free_space(there) {
        Ok(free) => free,
        Err(error) => {
            let found = format!("the free space of {} is not known: {error}", there.display());
            return subject.wrong(Code::FileFailed, found, remedy::of(Code::FileFailed));
        }
    };
    let largest = largest_transfer(host);
    judge_space(subject, free, largest, host.settings().state.reserve.0)
}

fn judge_space(subject: Subject, free: u64, largest: u64, reserve: u64) -> Check {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let wanted = largest.saturating_mul(SPACE_FACTOR).max(MIN_FREE_BYTES);
    let needed = largest.saturating_add(reserve);
    let found =
        format!("{} MiB are free; the largest of the last {LAST_TRANSFERS} transfers had {} MiB", mib(free), mib(largest));
    if free < needed {
        return subject.wrong(Code::DiskFull, format!("{found}: another one does not fit"), remedy::of(Code::DiskFull));
    }
    if free < wanted {
        let remedy = format!("free space until there are {} MiB, or move the state folder to a larger volume", mib(wanted));
        return subject.warning(Some(Code::DiskFull), found, remedy);
    }
    subject.ok(found)
}

/// The packed size of the largest of the last transfers; those whose list is not there do not count.
fn largest_transfer(host: &Host) -> u64 {
    let names = host.files.list(&host.layout.transfers(), None, MAX_FOLDERS).unwrap_or_default();
    let mut ids: Vec<TransferId> = names.iter().filter_map(|entry| entry.name.parse().ok()).collect();
    // An id begins with the time at which it was made.
    ids.sort_unstable_by_key(|id| std::cmp::Reverse(id.to_string()));
    let size = |id: TransferId| {
        let list = folder::packed_list(&*host.files, &host.layout, id).ok()?;
        Some(list.files.iter().map(|file| file.size).sum())
    };
    ids.into_iter().take(LAST_TRANSFERS).filter_map(size).max().unwrap_or(0)
}

fn enrolled(host: &Host) -> (Check, Option<Enrolment>) {
    let subject = Subject::new("enrolment", "enrolment", format!("reading {}", host.layout.enrolment().display()));
    match host.enrolment() {
        Ok(Some(enrolment)) => {
            let Enrolment { name, tenant, relay_url, .. } = &enrolment;
            (subject.ok(format!("agent {name} of tenant {tenant} with {relay_url}")), Some(enrolment))
        }
        Ok(None) => (subject.failed(&not_enrolled(&host.layout)), None),
        Err(failure) => (subject.failed(&failure), None),
    }
}

fn receiver(host: &Host, enrolment: Option<&Enrolment>) -> Check {
    let path = host.layout.allowed_signers();
    let subject = Subject::new("receiver", "receiver", format!("reading {}", path.display()));
    let Some(enrolment) = enrolment else { return subject.skipped("this agent is not enrolled") };
    match AllowedSigners::load(&path) {
        Ok(signers) => {
            let pinned = pinned_receivers(&signers, &enrolment.name);
            if pinned.is_empty() {
                let found = "no receiver is approved here, so that no receipt and no return file is believed";
                let remedy = "towpath-agent receiver list, compare the fingerprint with the receiver's operator, then: towpath-agent \
                              receiver approve FINGERPRINT";
                return subject.wrong(Code::ReceiverUnapproved, found, remedy);
            }
            let named: Vec<String> = pinned.iter().map(|one| format!("{} ({})", one.name, one.key.fingerprint())).collect();
            subject.ok(format!("approved: {}", named.join(", ")))
        }
        Err(failure) => subject.wrong(failure.code(), said(&failure), remedy::of(failure.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    #[test]
    fn space_is_judged_by_the_transfers() {
        let reserve = 64 << 20;
        let judge = |free, largest| judge_space(Subject::new("disk-space", "disk space", "x"), free, largest, reserve);
        let check = judge(MIN_FREE_BYTES, 0);
        assert_eq!((check.outcome, check.remedy), (Outcome::Ok, None));
        let check = judge(MIN_FREE_BYTES - 1, 0);
        assert_eq!((check.outcome, check.code), (Outcome::Warning, Some(Code::DiskFull)));
        assert!(check.remedy.unwrap().contains("until there are 1024 MiB"));
        let check = judge(reserve - 1, 0);
        assert_eq!((check.outcome, check.code), (Outcome::Failed, Some(Code::DiskFull)));
        let gib = 1 << 30;
        assert_eq!(judge(SPACE_FACTOR * 10 * gib, 10 * gib).outcome, Outcome::Ok);
        assert_eq!(judge(SPACE_FACTOR * 10 * gib - 1, 10 * gib).outcome, Outcome::Warning);
        assert!(judge(10 * gib, 10 * gib).found.ends_with("another one does not fit"));
    }
}
