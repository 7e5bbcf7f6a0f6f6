//! The journal of systemd, by its native protocol: one datagram an event, each field a field
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::{
    env, io,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::Level;

use super::{
    Sink,
    line::{Line, Value},
};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// What systemd says of standard error: device and inode of the stream to the journal (systemd.exec(5)).
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";
/// Before the name of every field that is not the journal's own, so that none passes for one.
const PREFIX: &str = "TOWPATH_";
/// The largest datagram, in bytes: what every system takes; the fields come in their order, and those beyond are left out.
const MAX_DATAGRAM: usize = 128 * 1024;

/// A connection to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    program: &'static str,
    dropped: AtomicU64,
}

impl Journal {
    /// The journal, where standard error leads to it.
    pub(super) fn of_standard_error(program: &'static str) -> Option<Self> {
        let told = env::var(STREAM_VARIABLE).ok()?;
        let stat = rustix::fs::fstat(io::stderr()).ok()?;
        if !names(&told, stat.st_dev, stat.st_ino) {
            return None;
        }
        Self::connect(Path::new(SOCKET), program).ok()
    }

    fn connect(socket: &Path, program: &'static str) -> io::Result<Self> {
        let to = socket;
        let socket = UnixDatagram::unbound()?;
        socket.connect(to)?;
        // A journal that does not keep up must not hold up the work.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, program, dropped: AtomicU64::new(0) })
    }
}

/// Whether this is the stream that the variable names.
fn names(told: &str, device: u64, inode: u64) -> bool {
    told.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

impl Sink for Journal {
    fn write(&self, line: &Line) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let mut line = line.clone();
        if dropped > 0 {
            line.fields.push(("lines_lost_before", Value::Integer(dropped.into())));
        }
        match self.socket.send(&datagram(&line, self.program)) {
            Ok(_) => {
                self.dropped.fetch_sub(dropped, Ordering::Relaxed);
            }
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn datagram(line: &Line, program: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, "MESSAGE", &line.story());
    field(&mut bytes, "PRIORITY", priority(line.level));
    field(&mut bytes, "SYSLOG_IDENTIFIER", program);
    field(&mut bytes, "TOWPATH_TARGET", line.target);
    for (name, value) in &line.fields {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        field(&mut bytes, &format!("{PREFIX}{name}"), &value.text());
    }
    bytes
}

/// Syslog's (RFC 5424 section 6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// A field in the form that takes any bytes: its name, its length in 64 bits, little endian, itself.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    if bytes.len() + name.len() + value.len() + 10 > MAX_DATAGRAM {
        return;
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> Line {
        Line {
            timestamp: "t".into(),
            level: Level::ERROR,
            target: "towpath_x",
            message: "waits for a person".into(),
            fields: vec![("code", Value::Text(value.into())), ("r#try", Value::Integer(2))],
        }
    }

    /// The fields of a datagram, as the journal reads them.
    fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = usize::try_from(u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap())).unwrap();
            let value = String::from_utf8(bytes[end + 9..end + 9 + length].to_vec()).unwrap();
            assert_eq!(bytes[end + 9 + length], b'\n');
            bytes = &bytes[end + 10 + length..];
            fields.push((name, value));
        }
        fields
    }

    #[test]
    fn an_event_is_one_entry_with_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let sink = Journal::connect(&path, "towpath-agent").unwrap();
        sink.write(&line("disk-full\nPRIORITY=0"));
        let mut bytes = vec![0; MAX_DATAGRAM];
        let count = journal.recv(&mut bytes).unwrap();
        let got = fields(&bytes[..count]);
        let expected = [
            ("MESSAGE", r#"waits for a person code="disk-full\nPRIORITY=0" r#try=2"#),
            ("PRIORITY", "3"),
            ("SYSLOG_IDENTIFIER", "towpath-agent"),
            ("TOWPATH_TARGET", "towpath_x"),
            ("TOWPATH_CODE", "disk-full\nPRIORITY=0"),
            ("TOWPATH_R_TRY", "2"),
        ];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_journal_that_takes_nothing_costs_lines_and_says_so_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let sink = Journal::connect(&path, "towpath-agent").unwrap();
        // Nobody reads, so that its queue is full at some time.
        while sink.dropped.load(Ordering::Relaxed) < 3 {
            sink.write(&line("x"));
        }
        journal.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; MAX_DATAGRAM];
        while journal.recv(&mut bytes).is_ok() {}
        sink.write(&line("x"));
        let count = journal.recv(&mut bytes).unwrap();
        assert!(fields(&bytes[..count]).contains(&("TOWPATH_LINES_LOST_BEFORE".to_owned(), "3".to_owned())));
    }

    #[test]
    fn the_stream_is_known_by_device_and_inode() {
        assert!(names("8:131", 8, 131));
        for told in ["8:132", "9:131", "8", "", "x:y", "8:131:1"] {
            assert!(!names(told, 8, 131), "{told}");
        }
    }

    #[test]
    fn a_datagram_keeps_to_its_bound() {
        let mut large = line("x");
        large.fields = (0..40).map(|_| ("f", Value::Text("x".repeat(16 * 1024)))).collect();
        let bytes = datagram(&large, "p");
        assert!(bytes.len() <= MAX_DATAGRAM && fields(&bytes).iter().any(|(name, _)| name == "PRIORITY"));
    }
}
