//! Export folders: whatever the app puts there whole is taken and sent.
//!
//! A file that is whole is claimed by a rename into `.taken/<transfer>/` beside it, is taken from there, noted in the journal, and
//! then removed. What a crash has left in `.taken` is gone on with, so that no file is lost and none goes twice.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use towpath_journal::WakeUp;
use towpath_transfer::{AgentName, Code, Failure, JobName, ReturnKind, TransferId, TransferKey, packed::PART_SUFFIX};
use towpath_transport::files::{FileEntry, FileKind, FileStat, TEMP_SUFFIX, file_failure};

use super::{
    claim::{self, Claim, MAX_CLAIMS},
    take::{self, Request, Source, has_room, note, travelling_name},
};
use crate::{agents::addressee, parts::Parts, uplink::verify::blocking};

/// How often the export folders are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The most names of one folder that one look considers, in the order of their bytes.
pub const MAX_WATCHED: usize = 10_000;

/// How it is known that a file is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complete {
    /// Length and time of change have stayed the same for so long.
    Stable(Duration),
    /// There is a second file, of the same name with this suffix.
    Marker(String),
}

/// A folder that is watched for return files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFolder {
    /// The folder. It must be there; `.taken` is made in it.
    pub folder: PathBuf,
    /// What return files lie there.
    pub kind: ReturnKind,
    /// For which agent; the only approved one where it is not said.
    pub agent: Option<AgentName>,
    /// For which ERP company.
    pub job: JobName,
    /// When a file is taken.
    pub complete: Complete,
}

/// A file as it was when it was looked at last, and since when it has been so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    len: u64,
    modified: Option<Timestamp>,
    since: Duration,
}

/// What is looked at: a name in a folder, or a claim on one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot {
    Name(String),
    Claim(TransferId),
}

/// Looks at the export folders again and again; what it remembers between two looks may be lost.
#[derive(Debug)]
pub struct Watcher {
    parts: Arc<Parts>,
    folders: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    folder: ExportFolder,
    seen: HashMap<Slot, Seen>,
    /// What was said already, so that it is said once.
    told: HashMap<String, Code>,
}

impl Watcher {
    /// A watcher of the folders of `parts`.
    #[must_use]
    pub fn new(parts: Arc<Parts>) -> Self {
        let watched = |folder: &ExportFolder| Watched { folder: folder.clone(), seen: HashMap::new(), told: HashMap::new() };
        let folders = parts.exports.iter().map(watched).collect();
        Self { parts, folders }
    }

    /// Looks at every folder once. Returns how many files were taken. What goes wrong is logged once, and tried again with the next
    /// look.
    pub async fn look(&mut self, wake: &WakeUp) -> usize {
        let mut taken = 0;
        for watched in &mut self.folders {
            taken += watched.look(&self.parts).await;
        }
        if taken > 0 {
            wake.hint();
        }
        taken
    }
}

impl Watched {
    async fn look(&mut self, parts: &Arc<Parts>) -> usize {
        let (mut taken, mut slots, mut said) = (0, HashSet::new(), HashSet::new());
        match self.claims(parts).await {
            Ok(claims) => {
                for (id, claim) in claims {
                    slots.insert(Slot::Claim(id));
                    taken += self.go_on(parts, id, &claim, &mut said).await;
                }
            }
            Err(failure) => self.heard(&mut said, ".claims", &failure),
        }
        match self.listed(parts).await {
            // What is claimed comes first, and more is claimed only where that can be looked at and is not too much.
            Ok(_) if slots.len() >= MAX_CLAIMS || said.contains(".claims") => {}
            Ok(entries) => {
                for (name, stat, marker) in self.candidates(entries, &mut said) {
                    slots.insert(Slot::Name(name.clone()));
                    taken += self.consider(parts, &name, stat, marker, &mut slots, &mut said).await;
                }
            }
            Err(failure) => self.heard(&mut said, ".folder", &failure),
        }
        self.forget(&slots, &said);
        taken
    }

    /// Says what is wrong, where it was not said before. What begins with a dot is no file's name here.
    fn heard(&mut self, said: &mut HashSet<String>, about: &str, failure: &Failure) {
        said.insert(about.to_owned());
        if self.told.insert(about.to_owned(), failure.code()) != Some(failure.code()) {
            let folder = self.folder.folder.display();
            tracing::warn!(%folder, code = %failure.code(), error = %failure.report(), "not taken from the export folder");
        }
    }

    /// Forgets what is not there any more, so that memory is bounded by what is.
    fn forget(&mut self, slots: &HashSet<Slot>, said: &HashSet<String>) {
        self.seen.retain(|slot, _| slots.contains(slot));
        self.told.retain(|about, _| said.contains(about));
    }

    async fn claims(&self, parts: &Arc<Parts>) -> Result<Vec<(TransferId, Claim)>, Failure> {
        let (parts, folder) = (Arc::clone(parts), self.folder.folder.clone());
        blocking(move || claim::all(&*parts.files, &folder)).await
    }

    async fn listed(&self, parts: &Arc<Parts>) -> Result<Vec<FileEntry>, Failure> {
        let (parts, folder) = (Arc::clone(parts), self.folder.folder.clone());
        blocking(move || {
            parts.files.list(&folder, None, MAX_WATCHED).map_err(|e| file_failure("looking at the export folder", &folder, e))
        })
        .await
    }

    /// The files that may be whole, and their markers.
    fn candidates(&mut self, entries: Vec<FileEntry>, said: &mut HashSet<String>) -> Vec<(String, FileStat, Option<String>)> {
        let names: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        let mut found = Vec::new();
        for FileEntry { name, stat } in entries {
            // Hidden names and those of files that are still written are nobody's mistake.
            if stat.kind == FileKind::Dir || name.starts_with('.') || name.ends_with(PART_SUFFIX) || name.ends_with(TEMP_SUFFIX) {
                continue;
            }
            let marker = match &self.folder.complete {
                Complete::Stable(_) => None,
                Complete::Marker(suffix) if name.ends_with(suffix.as_str()) => continue,
                Complete::Marker(suffix) => {
                    let marker = format!("{name}{suffix}");
                    if !names.contains(&marker) {
                        continue;
                    }
                    Some(marker)
                }
            };
            if stat.kind != FileKind::File {
                let failure = Failure::park(Code::ExportRefused, format!("{name} is a link or a device, and not a file"));
                self.heard(said, &name, &failure);
                continue;
            }
            found.push((name, stat, marker));
        }
        found
    }

    /// Claims and takes a file where it is whole and can travel.
    async fn consider(
        &mut self,
        parts: &Arc<Parts>,
        name: &str,
        stat: FileStat,
        marker: Option<String>,
        slots: &mut HashSet<Slot>,
        said: &mut HashSet<String>,
    ) -> usize {
        let slot = Slot::Name(name.to_owned());
        if !self.is_whole(parts, &slot, stat) {
            return 0;
        }
        let id = TransferId::new(&*parts.clock, &*parts.entropy);
        match self.claim(parts, id, name, stat, marker).await {
            Ok(claim) => {
                if let Some(seen) = self.seen.get(&slot).copied() {
                    self.seen.insert(Slot::Claim(id), seen);
                }
                slots.insert(Slot::Claim(id));
                self.go_on(parts, id, &claim, said).await
            }
            Err(failure) => {
                // Of some failures the file is not the cause; they are said once for all files.
                let about = if failure.code() == Code::ExportRefused { name } else { ".agent" };
                self.heard(said, about, &failure);
                0
            }
        }
    }

    /// Whether a file has stayed as it is for as long as is asked for.
    fn is_whole(&mut self, parts: &Parts, slot: &Slot, stat: FileStat) -> bool {
        let Complete::Stable(needed) = self.folder.complete else { return true };
        let now = parts.clock.monotonic();
        let fresh = Seen { len: stat.len, modified: stat.modified, since: now };
        let seen = self.seen.entry(slot.clone()).or_insert(fresh);
        if (seen.len, seen.modified) != (stat.len, stat.modified) {
            *seen = fresh;
        }
        now.saturating_sub(seen.since) >= needed
    }

    async fn claim(
        &self,
        parts: &Arc<Parts>,
        id: TransferId,
        name: &str,
        stat: FileStat,
        marker: Option<String>,
    ) -> Result<Claim, Failure> {
        let (parts, folder, given) = (Arc::clone(parts), self.folder.clone(), name.to_owned());
        blocking(move || {
            let name = travelling_name(&given)?;
            if stat.len > parts.limits.export_file_bytes {
                return Err(super::too_large(&folder.folder.join(&given), parts.limits.export_file_bytes));
            }
            let agent = addressee(&parts.trust.signers()?, folder.agent.as_ref())?;
            has_room(&parts, &agent)?;
            let files = vec![name.clone()];
            let taken = parts.clock.now();
            let request = Request { version: 1, agent, kind: folder.kind.clone(), job: folder.job.clone(), taken, files };
            let claim = Claim { request, name, marker };
            claim::begin(&*parts.files, &folder.folder, id, &claim)?;
            Ok(claim)
        })
        .await
    }

    /// Takes what is claimed, notes it and removes it; says 1 where it was noted now.
    async fn go_on(&mut self, parts: &Arc<Parts>, id: TransferId, claim: &Claim, said: &mut HashSet<String>) -> usize {
        match self.finish(parts, id, claim).await {
            Ok(taken) => usize::from(taken),
            Err(failure) => {
                self.heard(said, claim.name.as_str(), &failure);
                0
            }
        }
    }

    async fn finish(&mut self, parts: &Arc<Parts>, id: TransferId, claim: &Claim) -> Result<bool, Failure> {
        let folder = self.folder.folder.clone();
        let key = TransferKey { tenant: parts.tenant.clone(), agent: claim.request.agent.clone(), id };
        let known = parts.journal.get(&key).await?.is_some();
        if !known {
            let (holder, place, held) = (Arc::clone(parts), folder.clone(), claim.clone());
            let stat = blocking(move || claim::hold(&*holder.files, &place, id, &held)).await?;
            if let Some(stat) = stat {
                if !self.is_whole(parts, &Slot::Claim(id), stat) {
                    return Ok(false);
                }
                let (taker, path, request) = (Arc::clone(parts), claim::path(&folder, id, claim), claim.request.clone());
                let source = Source { name: claim.name.clone(), path };
                blocking(move || take::take(&taker, id, &request, &[source])).await?;
                let record = note(parts, id, &claim.request).await?;
                tracing::info!(transfer = %record.key, file = %claim.name, "taken from the export folder");
            }
        }
        let files = Arc::clone(parts);
        blocking(move || claim::release(&*files.files, &folder, id)).await?;
        Ok(!known)
    }
}
