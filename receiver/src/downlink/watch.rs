//! Export folders: whatever the app puts there whole is taken and sent.
//!
//! A file that is whole is claimed by a rename into `.taken/<transfer>/` beside it, is taken from there, noted in the journal, and
//! then removed. What a crash has left in `.taken` is gone on with, so that no file is lost and none goes twice.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_journal::WakeUp;
use towpath_transfer::{AgentName, Code, Failure, FileName, JobName, ReturnKind, TransferId, TransferKey, packed::PART_SUFFIX};
use towpath_transport::files::{
    FileEntry, FileKind, FileStat, FileStore, TEMP_SUFFIX, file_failure, ignore_missing, write_whole,
};

use super::{
    remove_tree,
    take::{self, Request, Source, has_room, note, travelling_name},
};
use crate::{agents::addressee, kept, parts::Parts, uplink::verify::blocking};

/// How often the export folders are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The most names of one folder that one look considers, in the order of their bytes.
pub const MAX_WATCHED: usize = 10_000;
/// The most files of one folder that are claimed and not removed yet.
pub const MAX_CLAIMS: usize = 1_000;
/// The folder of what is claimed.
const TAKEN_NAME: &str = ".taken";
/// The largest note of a claim, in bytes.
const MAX_CLAIM_BYTES: usize = 64 * 1024;

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

/// A file that is taken, or on its way there: `.taken/<transfer>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    request: Request,
    name: FileName,
    /// The marker's name, where one said that the file is whole.
    marker: Option<String>,
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
        blocking(move || claims(&*parts.files, &folder)).await
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
            begin(&*parts.files, &folder.folder, id, &claim)?;
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
            let stat = blocking(move || hold(&*holder.files, &place, id, &held)).await?;
            if let Some(stat) = stat {
                if !self.is_whole(parts, &Slot::Claim(id), stat) {
                    return Ok(false);
                }
                let (taker, path, request) = (Arc::clone(parts), claimed_path(&folder, id, claim), claim.request.clone());
                let source = Source { name: claim.name.clone(), path };
                blocking(move || take::take(&taker, id, &request, &[source])).await?;
                let record = note(parts, id, &claim.request).await?;
                tracing::info!(transfer = %record.key, file = %claim.name, "taken from the export folder");
            }
        }
        let files = Arc::clone(parts);
        blocking(move || release(&*files.files, &folder, id)).await?;
        Ok(!known)
    }
}

fn taken_folder(folder: &Path) -> PathBuf {
    folder.join(TAKEN_NAME)
}

fn note_path(folder: &Path, id: TransferId) -> PathBuf {
    taken_folder(folder).join(format!("{id}.json"))
}

fn marker_path(folder: &Path, id: TransferId) -> PathBuf {
    taken_folder(folder).join(format!("{id}.marker"))
}

fn claimed_path(folder: &Path, id: TransferId, claim: &Claim) -> PathBuf {
    taken_folder(folder).join(id.to_string()).join(claim.name.as_str())
}

fn claims(files: &dyn FileStore, folder: &Path) -> Result<Vec<(TransferId, Claim)>, Failure> {
    let taken = taken_folder(folder);
    let entries = match files.list(&taken, None, MAX_CLAIMS.saturating_mul(4)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(file_failure("looking at", &taken, e)),
    };
    // A note that was being written when the power went is none.
    for unfinished in entries.iter().filter(|entry| entry.name.ends_with(TEMP_SUFFIX)) {
        let path = taken.join(&unfinished.name);
        ignore_missing(files.remove(&path)).map_err(|e| file_failure("removing", &path, e))?;
    }
    let ids = entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse::<TransferId>().ok());
    let mut found = Vec::new();
    for id in ids {
        let path = note_path(folder, id);
        let Some(bytes) = kept::read(files, &path, MAX_CLAIM_BYTES)? else { continue };
        let damaged =
            |e: serde_json::Error| Failure::park(Code::FileFailed, format!("{} is damaged", path.display())).caused_by(e);
        found.push((id, serde_json::from_slice(&bytes).map_err(damaged)?));
    }
    Ok(found)
}

/// Notes a claim and moves the file there, and its marker before it: a marker that stayed behind would vouch for the next file of
/// that name.
fn begin(files: &dyn FileStore, folder: &Path, id: TransferId, claim: &Claim) -> Result<(), Failure> {
    let taken = taken_folder(folder);
    let own = taken.join(id.to_string());
    files.create_dir_all(&taken).map_err(|e| file_failure("creating", &taken, e))?;
    let text = serde_json::to_vec(claim).map_err(|e| Failure::park(Code::Internal, "writing a claim failed").caused_by(e))?;
    let path = note_path(folder, id);
    write_whole(files, &path, &text).map_err(|e| file_failure("writing", &path, e))?;
    files.create_dir_all(&own).map_err(|e| file_failure("creating", &own, e))?;
    if let Some(marker) = &claim.marker {
        let from = folder.join(marker);
        files.rename(&from, &marker_path(folder, id)).map_err(|e| file_failure("claiming", &from, e))?;
        sync(files, &[&taken, folder])?;
    }
    let from = folder.join(claim.name.as_str());
    files.rename(&from, &claimed_path(folder, id, claim)).map_err(|e| file_failure("claiming", &from, e))
}

/// Makes a claim durable and says what is claimed; `None` where nothing is, because it was stopped before.
fn hold(files: &dyn FileStore, folder: &Path, id: TransferId, claim: &Claim) -> Result<Option<FileStat>, Failure> {
    let (claimed, source) = (claimed_path(folder, id, claim), folder.join(claim.name.as_str()));
    let (vouched, marker) = (marker_path(folder, id), claim.marker.as_ref().map(|marker| folder.join(marker)));
    let vouches = look(files, &vouched)?;
    if let Some(marker) = &marker
        && is_same(vouches, look(files, marker)?)
    {
        files.rename(marker, &vouched).map_err(|e| file_failure("claiming", marker, e))?;
    }
    let (here, there) = (look(files, &claimed)?, look(files, &source)?);
    // A marker that is claimed vouches for a file that is not claimed yet.
    let follows = here.is_none() && vouches.is_some() && there.is_some_and(|there| there.kind == FileKind::File);
    if follows || is_same(here, there) {
        files.rename(&source, &claimed).map_err(|e| file_failure("claiming", &source, e))?;
    } else if here.is_none() {
        return Ok(None);
    }
    sync(files, &[claimed.parent().unwrap_or(folder), &taken_folder(folder), folder])?;
    look(files, &claimed)
}

fn look(files: &dyn FileStore, path: &Path) -> Result<Option<FileStat>, Failure> {
    match files.stat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_failure("looking for", path, e)),
    }
}

/// Whether what is claimed and what lies in the folder is one file: a power cut can show it under both names.
fn is_same(here: Option<FileStat>, there: Option<FileStat>) -> bool {
    here.is_some_and(|here| here.modified.is_some()) && here == there
}

/// Removes a claim; its note last, so that a crash leaves nothing that nobody knows.
fn release(files: &dyn FileStore, folder: &Path, id: TransferId) -> Result<(), Failure> {
    let taken = taken_folder(folder);
    remove_tree(files, &taken.join(id.to_string()))?;
    for path in [marker_path(folder, id), note_path(folder, id)] {
        ignore_missing(files.remove(&path)).map_err(|e| file_failure("removing", &path, e))?;
        sync(files, &[&taken])?;
    }
    Ok(())
}

fn sync(files: &dyn FileStore, folders: &[&Path]) -> Result<(), Failure> {
    folders.iter().try_for_each(|folder| files.sync_dir(folder).map_err(|e| file_failure("syncing", folder, e)))
}
