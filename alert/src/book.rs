//! What was raised, and who was told of it.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::{Code, Failure, JobName, TransferId, failure::Result};
use towpath_transport::files::{FileStore, file_failure, read_if_there, write_whole};

use crate::{Alert, Finding, Kind, Trouble, means::Way};

/// The largest file of a book, in bytes; it has room for every job of every agent.
pub const MAX_BOOK_BYTES: u64 = 64 * 1024 * 1024;
/// The version of the file.
const VERSION: u32 = 1;

/// What one way still has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Owes {
    /// Nothing, and nothing was told that is not taken back.
    #[default]
    Nothing,
    /// That something is wrong.
    Raised,
    /// Nothing: it knows that something is wrong.
    Told,
    /// That something was wrong, and then that it is well again.
    Both,
    /// That all is well again.
    Recovered,
}

impl Owes {
    fn raised(self) -> Self {
        match self {
            Self::Nothing | Self::Raised | Self::Both => Self::Raised,
            // Nobody there has heard that it was well in between.
            Self::Told | Self::Recovered => Self::Told,
        }
    }

    fn recovered(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Raised | Self::Both => Self::Both,
            Self::Told | Self::Recovered => Self::Recovered,
        }
    }

    fn next(self) -> Option<Kind> {
        match self {
            Self::Raised | Self::Both => Some(Kind::Raised),
            Self::Recovered => Some(Kind::Recovered),
            Self::Nothing | Self::Told => None,
        }
    }

    fn told(self) -> Self {
        match self {
            Self::Raised | Self::Told => Self::Told,
            Self::Both => Self::Recovered,
            Self::Nothing | Self::Recovered => Self::Nothing,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    trouble: Trouble,
    /// Names this trouble at the far side.
    id: String,
    /// Its place among all that were raised.
    #[serde(default)]
    raised: u64,
    open: bool,
    program: Owes,
    webhook: Owes,
}

impl Entry {
    fn owes(&mut self, way: Way) -> &mut Owes {
        match way {
            Way::Program => &mut self.program,
            Way::Webhook => &mut self.webhook,
        }
    }

    fn each(&mut self, change: fn(Owes) -> Owes) {
        for way in Way::ALL {
            let owes = self.owes(way);
            *owes = change(*owes);
        }
    }

    fn is_over(&self) -> bool {
        !self.open && self.program.next().is_none() && self.webhook.next().is_none()
    }
}

/// What is open, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenAlert {
    /// The job; absent where it is not about one.
    pub job: Option<JobName>,
    /// The operator error code.
    pub code: Code,
    /// One line for a person.
    pub summary: String,
    /// Since when something is wrong.
    pub since: Timestamp,
    /// The transfer that failed, where there is one.
    pub transfer: Option<TransferId>,
    /// Whether everybody who is to be told was told.
    pub told: bool,
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Raised(Box<Trouble>),
    Recovered(Box<Trouble>),
}

/// Something that somebody has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) key: String,
    /// Names it at the far side, the same with every try.
    pub(crate) id: String,
    pub(crate) alert: Alert,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    version: u32,
    /// How many were raised; it begins anew where none is left.
    #[serde(default)]
    raised: u64,
    alerts: BTreeMap<String, Entry>,
}

impl Book {
    /// The book of a file; an empty one where there is none.
    pub(crate) fn read(files: &dyn FileStore, path: &Path) -> Result<Self> {
        let bytes = read_if_there(files, path, MAX_BOOK_BYTES).map_err(|error| file_failure("reading", path, error))?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("reading {}: it is not what was written there", path.display());
            Failure::park(Code::FileFailed, message).caused_by(error)
        })
    }

    pub(crate) fn write(&self, files: &dyn FileStore, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(&Self { version: VERSION, ..self.clone() });
        let bytes = bytes.map_err(|error| Failure::park(Code::Internal, "writing the alerts as JSON").caused_by(error))?;
        write_whole(files, path, &bytes).map_err(|error| file_failure("writing", path, error))
    }

    /// Takes what a watch has found out of everything it watches. What it does not name is not watched any more, and forgotten.
    /// `id` makes a new name for a trouble; at most `most` are open at once, and further ones wait.
    pub(crate) fn look(&mut self, found: BTreeMap<String, Finding>, most: usize, id: &dyn Fn() -> String) -> Vec<Change> {
        let mut changes = Vec::new();
        self.alerts.retain(|key, entry| found.contains_key(key) || !entry.open && !entry.is_over());
        for (key, finding) in found {
            match finding {
                Finding::Wrong(trouble) => changes.extend(self.wrong(key, *trouble, most, id)),
                Finding::Well => {
                    if let Some(entry) = self.alerts.get_mut(&key).filter(|entry| entry.open) {
                        entry.open = false;
                        entry.each(Owes::recovered);
                        changes.push(Change::Recovered(Box::new(entry.trouble.clone())));
                    }
                }
                Finding::Unknown => {}
            }
        }
        self.forget_what_is_over();
        changes
    }

    fn forget_what_is_over(&mut self) {
        self.alerts.retain(|_, entry| !entry.is_over());
        if self.alerts.is_empty() {
            self.raised = 0;
        }
    }

    fn wrong(&mut self, key: String, trouble: Trouble, most: usize, id: &dyn Fn() -> String) -> Option<Change> {
        let is_full = self.alerts.len() >= most;
        let raised = self.raised.saturating_add(1);
        match self.alerts.get_mut(&key) {
            Some(entry) if entry.open => {
                // The same trouble, as far as anybody is concerned who was told; `status` shows what it has become.
                let since = entry.trouble.since.min(trouble.since);
                entry.trouble = Trouble { since, ..trouble };
                None
            }
            Some(entry) => {
                (entry.open, entry.id, entry.raised) = (true, id(), raised);
                entry.trouble = trouble.clone();
                entry.each(Owes::raised);
                self.raised = raised;
                Some(Change::Raised(Box::new(trouble)))
            }
            None if is_full => None,
            None => {
                let (program, webhook) = (Owes::Raised, Owes::Raised);
                self.alerts.insert(key, Entry { trouble: trouble.clone(), id: id(), raised, open: true, program, webhook });
                self.raised = raised;
                Some(Change::Raised(Box::new(trouble)))
            }
        }
    }

    /// What a way is owed, what was raised first being the first. Since when something is wrong is often the word of the one it is
    /// about, and would let them come before everybody else again and again.
    pub(crate) fn owed(&self, way: Way) -> Vec<Notice> {
        let mut owed: Vec<(u64, Notice)> = Vec::new();
        for (key, entry) in &self.alerts {
            let owes = if way == Way::Program { entry.program } else { entry.webhook };
            if let Some(kind) = owes.next() {
                let (id, alert) = (format!("{}-{}", entry.id, kind.as_str()), entry.trouble.alert(kind));
                owed.push((entry.raised, Notice { key: key.clone(), id, alert }));
            }
        }
        owed.sort_by_key(|(raised, _)| *raised);
        owed.into_iter().map(|(_, notice)| notice).collect()
    }

    /// A way was told this, or need not be told it.
    pub(crate) fn told(&mut self, way: Way, notice: &Notice) {
        if let Some(entry) = self.alerts.get_mut(&notice.key) {
            let owes = entry.owes(way);
            // What has changed meanwhile is told next.
            *owes = match (notice.alert.alert, *owes) {
                (Kind::Raised, Owes::Raised | Owes::Both) => owes.told(),
                // It was told that all is well while something was wrong again.
                (Kind::Recovered, Owes::Told) => Owes::Raised,
                (Kind::Recovered, Owes::Recovered) => Owes::Nothing,
                (_, other) => other,
            };
        }
        self.forget_what_is_over();
    }

    pub(crate) fn open(&self) -> Vec<OpenAlert> {
        let open = self.alerts.values().filter(|entry| entry.open).map(|entry| OpenAlert {
            job: entry.trouble.job.clone(),
            code: entry.trouble.code,
            summary: crate::one_line(&entry.trouble.summary),
            since: entry.trouble.since,
            transfer: entry.trouble.transfer,
            told: entry.program.next().is_none() && entry.webhook.next().is_none(),
        });
        open.collect()
    }
}

/// What is open according to the file of a desk, for a command beside the program that has the desk.
///
/// # Errors
/// `file-failed` where it cannot be read.
pub fn open_alerts(files: &dyn FileStore, path: &Path) -> Result<Vec<OpenAlert>> {
    Ok(Book::read(files, path)?.open())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, path::PathBuf};

    use towpath_transport::files::MemoryFiles;

    use super::*;

    fn trouble(summary: &str) -> Trouble {
        Trouble {
            agent: "erp".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            job: Some("main".parse().unwrap()),
            code: Code::ErpMissing,
            summary: summary.to_owned(),
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            transfer: None,
        }
    }

    struct Scene {
        book: Book,
        ids: Cell<u32>,
    }

    impl Scene {
        fn new() -> Self {
            Self { book: Book::default(), ids: Cell::new(0) }
        }

        fn look(&mut self, finding: Finding) -> usize {
            let id = || {
                self.ids.set(self.ids.get() + 1);
                format!("t{}", self.ids.get())
            };
            self.book.look(BTreeMap::from([("job:main".to_owned(), finding)]), 10, &id).len()
        }

        fn wrong(&mut self) -> usize {
            self.look(Finding::Wrong(Box::new(trouble("it failed"))))
        }

        /// Tells a way everything that it is owed.
        fn tell(&mut self, way: Way) -> Vec<String> {
            let mut told = Vec::new();
            while let Some(notice) = self.book.owed(way).first().cloned() {
                self.book.told(way, &notice);
                told.push(notice.id);
            }
            told
        }
    }

    #[test]
    fn a_trouble_is_told_once_and_once_when_it_is_over() {
        let mut scene = Scene::new();
        assert_eq!((scene.look(Finding::Well), scene.wrong(), scene.wrong(), scene.look(Finding::Unknown)), (0, 1, 0, 0));
        for way in Way::ALL {
            assert_eq!((scene.tell(way), scene.tell(way).len()), (vec!["t1-raised".to_owned()], 0));
        }
        assert_eq!(scene.book.open().len(), 1);
        assert_eq!((scene.look(Finding::Well), scene.look(Finding::Well)), (1, 0));
        for way in Way::ALL {
            assert_eq!(scene.tell(way), ["t1-recovered"]);
        }
        assert_eq!(scene.book, Book::default());
    }

    #[test]
    fn whoever_could_not_be_told_hears_both_in_their_order_and_a_flutter_once() {
        let mut scene = Scene::new();
        scene.wrong();
        scene.tell(Way::Program);
        for _ in 0..3 {
            scene.look(Finding::Well);
            scene.wrong();
        }
        // The program was told of a trouble that is still there as far as it knows; the webhook hears of it now.
        assert_eq!((scene.tell(Way::Program).len(), scene.tell(Way::Webhook)), (0, vec!["t4-raised".to_owned()]));
        scene.look(Finding::Well);
        scene.wrong();
        scene.look(Finding::Well);
        assert_eq!(
            (scene.tell(Way::Program), scene.tell(Way::Webhook)),
            (vec!["t5-recovered".into()], vec!["t5-recovered".into()])
        );
        scene.wrong();
        scene.look(Finding::Well);
        assert_eq!(scene.tell(Way::Webhook), ["t6-raised", "t6-recovered"]);
    }

    #[test]
    fn who_says_that_it_began_long_ago_does_not_come_before_the_others_again_and_again() {
        let mut scene = Scene::new();
        let wrong = |since: &str| Finding::Wrong(Box::new(Trouble { since: since.parse().unwrap(), ..trouble("it failed") }));
        let mut look = |liar: Finding| {
            let found = BTreeMap::from([("liar".to_owned(), liar), ("other".to_owned(), wrong("2026-01-01T00:00:00Z"))]);
            scene.book.look(found, 10, &|| {
                scene.ids.set(scene.ids.get() + 1);
                format!("t{}", scene.ids.get())
            });
            let first = scene.book.owed(Way::Program).remove(0);
            scene.book.told(Way::Program, &first);
            first.id
        };
        let told = [
            look(wrong("1970-01-01T00:00:00Z")),
            look(Finding::Well),
            // By now it would be the oldest of all once more.
            look(wrong("1970-01-01T00:00:00Z")),
            look(Finding::Well),
        ];
        assert_eq!(told, ["t1-raised", "t1-recovered", "t2-raised", "t3-raised"]);
    }

    #[test]
    fn what_changes_while_it_is_told_is_told_next() {
        let mut scene = Scene::new();
        scene.wrong();
        let raised = scene.book.owed(Way::Webhook).remove(0);
        scene.look(Finding::Well);
        scene.book.told(Way::Webhook, &raised);
        let recovered = scene.book.owed(Way::Webhook).remove(0);
        assert_eq!(recovered.id, "t1-recovered");
        scene.wrong();
        scene.book.told(Way::Webhook, &recovered);
        assert_eq!(scene.tell(Way::Webhook), ["t2-raised"]);
    }

    #[test]
    fn what_is_not_watched_any_more_is_forgotten_and_the_book_is_bounded() {
        let mut scene = Scene::new();
        scene.wrong();
        scene.book.look(BTreeMap::new(), 10, &String::new);
        assert_eq!(scene.book, Book::default());
        let many = |count: usize| (0..count).map(|n| (format!("k{n}"), Finding::Wrong(Box::new(trouble("x"))))).collect();
        assert_eq!(scene.book.look(many(12), 10, &String::new).len(), 10);
        // What did not fit is raised when there is room.
        let mut found: BTreeMap<String, Finding> = many(12);
        found.insert("k0".into(), Finding::Well);
        scene.tell(Way::Program);
        scene.tell(Way::Webhook);
        scene.book.look(found.clone(), 10, &String::new);
        scene.tell(Way::Program);
        scene.tell(Way::Webhook);
        assert!(!scene.book.look(found, 10, &String::new).is_empty());
    }

    #[test]
    fn a_book_is_read_as_it_was_written_and_a_damaged_one_is_told() {
        let (files, path) = (MemoryFiles::new(), PathBuf::from("/state/alerts.json"));
        files.create_dir_all(Path::new("/state")).unwrap();
        assert_eq!(Book::read(&files, &path).unwrap(), Book::default());
        let mut scene = Scene::new();
        scene.wrong();
        scene.tell(Way::Program);
        scene.book.write(&files, &path).unwrap();
        assert_eq!(Book::read(&files, &path).unwrap().alerts, scene.book.alerts);
        let [open] = &*open_alerts(&files, &path).unwrap() else { panic!("one is open") };
        assert!(!open.told && open.code == Code::ErpMissing);
        write_whole(&files, &path, b"{").unwrap();
        assert_eq!(Book::read(&files, &path).unwrap_err().code(), Code::FileFailed);
    }
}
