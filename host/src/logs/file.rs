//! A log file with a bound, written by a thread of its own.
//!
//! The file `x.log` is put aside as `x.log.1` when it is full, that one as `x.log.2`, and so on; the last is removed. Where a name
//! cannot be given, as on Windows while somebody follows the file with a program that holds it, the file grows to twice its bound
//! until it can. A disk that is full or a folder that is gone costs lines and nothing else: how many is told when the file can be
//! written again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use towpath_transfer::Code;
use tracing::Level;

use super::line::{Line, Value};

/// Lines that wait for the disk; more are dropped.
pub const QUEUE_LINES: usize = 4_096;
/// How long the end of a program waits for the disk.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Where to and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSettings {
    pub(super) path: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) files: usize,
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// A log file that is being written. Clones share it; the last one that is dropped ends its thread.
#[derive(Clone)]
pub(super) struct LogFile {
    settings: Arc<FileSettings>,
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogFile {
    /// Begins to write. The file is made with its first line.
    pub(super) fn start(settings: FileSettings) -> Self {
        let settings = Arc::new(settings);
        let (queue, lines) = mpsc::sync_channel(QUEUE_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { settings: Arc::clone(&settings), open: None, dropped: Arc::clone(&dropped), is_failing: false };
        // Without a thread every line is dropped and counted, which is all that a log may cost.
        let _ = thread::Builder::new().name("log file".into()).spawn(move || writer.run(&lines));
        Self { settings, queue, dropped }
    }

    pub(super) fn settings(&self) -> &FileSettings {
        &self.settings
    }

    /// Hands a line over, or drops it where too many wait.
    pub(super) fn push(&self, line: &Line) {
        if self.queue.try_send(Message::Line(line.json())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, at most [`FLUSH_LIMIT`], until everything before is written.
    pub(super) fn flush(&self) {
        let (done, told) = mpsc::sync_channel(1);
        match self.queue.try_send(Message::Flush(done)) {
            Ok(()) => {
                // Whoever ends cannot do more than wait.
                let _ = told.recv_timeout(FLUSH_LIMIT);
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The thread's side.
struct Writer {
    settings: Arc<FileSettings>,
    open: Option<Open>,
    dropped: Arc<AtomicU64>,
    is_failing: bool,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            self.look_whether_it_is_still_there();
            self.take(first);
            for _ in 1..QUEUE_LINES {
                let Ok(next) = queue.try_recv() else { break };
                self.take(next);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => self.line(&line),
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }

    fn line(&mut self, line: &str) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let told = if dropped == 0 { Ok(()) } else { self.write(&lost(dropped).json()) };
        if dropped != 0 && told.is_ok() {
            self.dropped.fetch_sub(dropped, Ordering::Relaxed);
        }
        match told.and_then(|()| self.write(line)) {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.open = None;
                self.dropped.fetch_add(1, Ordering::Relaxed);
                // Told where the log goes besides; here it comes back as one more line that is dropped, once.
                if !std::mem::replace(&mut self.is_failing, true) {
                    let file = self.settings.path.display();
                    tracing::warn!(code = %Code::FileFailed, %file, %error, "the log file cannot be written; lines are lost until it can");
                }
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        let length = bytes.len() as u64;
        if self.open.as_ref().is_some_and(|open| open.bytes > 0 && open.bytes + length > self.settings.max_bytes) {
            self.open = None;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open_file(&self.settings, length)?,
        };
        match open.file.write_all(&bytes) {
            Ok(()) => {
                open.bytes += length;
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one.
                let _ = open.file.set_len(open.bytes);
                Err(error)
            }
        }
    }

    /// Somebody may have removed or renamed the file or its folder, and a file without a name takes lines for nobody.
    fn look_whether_it_is_still_there(&mut self) {
        let is_there = self.open.as_ref().is_some_and(|open| is_same(&open.file, &self.settings.path));
        if !is_there {
            self.open = None;
        }
    }
}

fn open_file(settings: &FileSettings, more: u64) -> io::Result<Open> {
    if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let bytes = fs::metadata(&settings.path).map_or(0, |metadata| metadata.len());
    if bytes > 0 && bytes + more > settings.max_bytes {
        match put_aside(settings) {
            Err(error) if bytes + more > settings.max_bytes.saturating_mul(2) => return Err(error),
            _ => {}
        }
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    // Values from databases may stand in it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let file = options.open(&settings.path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

/// Takes the file's name from it and makes it the first of those that are put aside. It leaves its name before the others move up, so
/// that none of them is given up for one that cannot leave.
fn put_aside(settings: &FileSettings) -> io::Result<()> {
    if settings.files == 0 {
        return gone(fs::remove_file(&settings.path));
    }
    // One that left its name and went no further goes first.
    move_up(settings)?;
    gone(fs::rename(&settings.path, numbered(settings, 0)))?;
    move_up(settings)
}

/// Makes the file that has left its name the first. Only those below the first free number move, and the last is given up only where
/// none is free.
fn move_up(settings: &FileSettings) -> io::Result<()> {
    if !numbered(settings, 0).exists() {
        return Ok(());
    }
    let free = (1..settings.files).find(|number| !numbered(settings, *number).exists()).unwrap_or(settings.files);
    for number in (0..free).rev() {
        gone(fs::rename(numbered(settings, number), numbered(settings, number + 1)))?;
    }
    Ok(())
}

fn numbered(settings: &FileSettings, number: usize) -> PathBuf {
    let mut name = settings.path.clone().into_os_string();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// What is not there needs no renaming.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|found| (found.dev(), found.ino()));
    let ours = identity(file.metadata());
    ours.is_some() && ours == identity(fs::metadata(path))
}

/// Somebody who renames an open file of Windows gets its lines until it is full.
#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

fn lost(lines: u64) -> Line {
    Line {
        timestamp: super::layer::timestamp(),
        level: Level::WARN,
        target: module_path!(),
        message: "lines of the log were lost: the disk did not take them, or not fast enough".to_owned(),
        fields: vec![("code", Value::Text(Code::FileFailed.as_str().to_owned())), ("lines", Value::Integer(lines.into()))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        let (timestamp, message) = ("t".to_owned(), message.to_owned());
        Line { timestamp, level: Level::INFO, target: "x", message, fields: Vec::new() }
    }

    fn settings(path: &Path, max_bytes: u64, files: usize) -> FileSettings {
        FileSettings { path: path.to_owned(), max_bytes, files }
    }

    fn messages(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let message =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].as_str().unwrap().to_owned();
        text.lines().map(message).collect()
    }

    /// The same without a thread, so that a test knows when a line is written.
    fn writer(settings: FileSettings) -> Writer {
        Writer { settings: Arc::new(settings), open: None, dropped: Arc::default(), is_failing: false }
    }

    fn write(writer: &mut Writer, message: &str) {
        writer.look_whether_it_is_still_there();
        writer.line(&line(message).json());
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let room_for_two = line("0").json().len() as u64 * 2 + 2;
        let mut writer = writer(settings(&path, room_for_two, 2));
        for number in 0..9 {
            write(&mut writer, &number.to_string());
        }
        let numbered = |number: usize| messages(&folder.path().join(format!("logs/a.log.{number}")));
        assert_eq!(
            (messages(&path), numbered(1), numbered(2)),
            (vec!["8".into()], vec!["6".into(), "7".into()], vec!["4".into(), "5".into()])
        );
        assert!(!folder.path().join("logs/a.log.3").exists());
        // A restart goes on in the file that is there, and keeps to the bound.
        drop(writer);
        let mut again = super::tests::writer(settings(&path, room_for_two, 0));
        for message in ["9", "10"] {
            write(&mut again, message);
        }
        assert_eq!((messages(&path), numbered(1).len()), (vec!["10".into()], 2));
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_grows_to_twice_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let room_for_two = line("0").json().len() as u64 * 2 + 2;
        let mut writer = writer(settings(&path, room_for_two, 3));
        let in_the_way = [1, 2, 3].map(|number| folder.path().join(format!("a.log.{number}/x")));
        in_the_way.iter().for_each(|way| fs::create_dir_all(way).unwrap());
        for number in 0..7 {
            write(&mut writer, &number.to_string());
        }
        let aside = |number: usize| messages(&folder.path().join(format!("a.log.{number}")));
        assert_eq!((messages(&path), aside(0)), (["2", "3", "4", "5"].map(str::to_owned).to_vec(), vec!["0".into(), "1".into()]));
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 1);
        in_the_way.iter().for_each(|way| fs::remove_dir_all(way.parent().unwrap()).unwrap());
        write(&mut writer, "7");
        assert_eq!(messages(&path).last().unwrap(), "7");
        // Between them is the line that says how many were lost.
        assert_eq!((aside(1).len(), aside(2).len(), aside(3)), (1, 4, vec!["0".into(), "1".into()]));
        assert!(!folder.path().join("a.log.0").exists());
    }

    #[cfg(windows)]
    #[test]
    fn a_file_that_somebody_follows_takes_all_lines() {
        use std::os::windows::fs::OpenOptionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let room_for_two = line("0").json().len() as u64 * 2 + 2;
        let mut writer = writer(settings(&path, room_for_two, 2));
        write(&mut writer, "0");
        // FILE_SHARE_READ and FILE_SHARE_WRITE, without which it could not be written either.
        let follower = OpenOptions::new().read(true).share_mode(1 | 2).open(&path).unwrap();
        for number in 1..4 {
            write(&mut writer, &number.to_string());
        }
        assert_eq!(messages(&path), ["0", "1", "2", "3"]);
        drop(follower);
        write(&mut writer, "4");
        assert_eq!((messages(&path), writer.dropped.load(Ordering::Relaxed)), (vec!["4".into()], 0));
        assert_eq!(messages(&folder.path().join("a.log.1")).len(), 4);
    }

    #[test]
    fn a_file_or_folder_that_is_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        let mut writer = writer(settings(&path, 1_000_000, 2));
        write(&mut writer, "before");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        write(&mut writer, "after");
        assert_eq!(messages(&path), ["after"]);
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted_and_told_when_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.log");
        // A file where the folder should be.
        fs::write(folder.path().join("logs"), b"").unwrap();
        let mut writer = writer(settings(&path, 1_000_000, 2));
        write(&mut writer, "lost");
        write(&mut writer, "lost");
        fs::remove_file(folder.path().join("logs")).unwrap();
        write(&mut writer, "kept");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().next().unwrap().contains("\"lines\":2"), "{text}");
        assert_eq!(messages(&path).last().unwrap(), "kept");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let mut writer = writer(settings(Path::new("/dev/full"), 1_000_000, 2));
        write(&mut writer, "lost");
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_queue_that_is_full_drops_and_never_waits() {
        let (queue, lines) = mpsc::sync_channel(1);
        let settings = Arc::new(settings(Path::new("none"), 1, 1));
        let file = LogFile { settings, queue, dropped: Arc::default() };
        for _ in 0..3 {
            file.push(&line("x"));
        }
        assert_eq!(file.dropped.load(Ordering::Relaxed), 2);
        file.flush();
        drop(lines);
    }

    #[test]
    fn a_flush_waits_for_what_was_logged_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let file = LogFile::start(settings(&path, 1_000_000, 2));
        for number in 0..100 {
            file.push(&line(&number.to_string()));
        }
        // The limit may pass on a machine that is busy; each look waits for the thread once more.
        while messages(&path).len() < 100 {
            file.flush();
        }
    }
}
