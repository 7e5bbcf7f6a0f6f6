//! Who is told of alerts: a program that keeps what it was given, and a web service that keeps what was posted to it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::Value;

/// The longest body that [`WebhookListener`] takes, in bytes.
const MAX_BODY: usize = 1 << 20;

/// A program of `[alert]`, which writes its first argument and its standard input down, one line for each call.
#[derive(Debug, Clone)]
pub struct TellingProgram {
    told: PathBuf,
}

impl TellingProgram {
    /// One that keeps what it is told in a file of this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { told: folder.join("told.txt") }
    }

    /// The settings of `[alert]` that call it; its argument is the alert's kind, its job and its code.
    #[must_use]
    pub fn toml(&self) -> String {
        format!(
            "program = \"/bin/sh\"\narguments = ['-c', 'printf \"%s\\t%s\\n\" \"$2\" \"$(cat)\" >> \"$1\"', 'tell', '{}', \
             '{{alert}} {{job}} {{code}}']\n",
            self.told.display()
        )
    }

    /// What it was told so far, call by call: its argument, and the alert.
    ///
    /// # Panics
    /// Where it was given something else than JSON.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(&self.told).unwrap_or_default();
        // The last line may be in the middle of being written.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| {
                let (argument, alert) = line.split_once('\t').unwrap_or_else(|| panic!("no call looks like {line:?}"));
                (argument.to_owned(), serde_json::from_str(alert).unwrap_or_else(|e| panic!("{e}: {line:?}")))
            })
            .collect()
    }
}

/// One request that a [`WebhookListener`] has answered.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Method, target and version.
    pub request: String,
    headers: Vec<(String, String)>,
    /// The body, byte by byte.
    pub body: Vec<u8>,
}

impl Posted {
    /// The value of a header; its name in small letters.
    ///
    /// # Panics
    /// Where it is not there exactly once.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<&str> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
        let [value] = found[..] else { panic!("{name} is there {} times: {self:?}", found.len()) };
        value
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a webhook's body is JSON")
    }
}

/// A web service on loopback that answers everything with 204. It lives as long as the test's process.
#[derive(Debug, Clone)]
pub struct WebhookListener {
    port: u16,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl WebhookListener {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let port = listener.local_addr().expect("the port").port();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&posted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection without a request is no call. It is noted before it is answered: whoever has the answer finds it here.
                if let Ok(one) = request(&stream) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                }
            }
        });
        Self { port, posted }
    }

    /// Its URL, with a path of one's own.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was posted so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn request(stream: &TcpStream) -> std::io::Result<Posted> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok::<String, std::io::Error>(line.trim_end().to_owned())
    };
    let request = line()?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let length: usize = length.filter(|length| *length <= MAX_BODY).ok_or_else(|| invalid("no length that can be"))?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Posted { request, headers, body })
}
