//! Questions to a person at a terminal, a line each.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, failure::Result};

use crate::cli::output;

/// The longest answer, in bytes; an enrolment code is the longest there is.
const MAX_ANSWER_BYTES: usize = 4 * 1024;
/// How often a question is asked again whose answer cannot be used.
const MAX_TRIES: usize = 20;

/// Asks where there is somebody to ask.
pub(super) struct Dialog {
    there: bool,
    stop: CancellationToken,
}

/// Whether what is typed is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

impl Dialog {
    /// Asks at a terminal, unless `silent`; gives up when `stop` is cancelled.
    pub(super) fn new(silent: bool, stop: CancellationToken) -> Self {
        Self { there: !silent && io::stdin().is_terminal() && io::stderr().is_terminal(), stop }
    }

    /// Whether there is somebody to ask.
    pub(super) fn is_there(&self) -> bool {
        self.there
    }

    /// The signal to give up.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// A text; an empty answer is `default`, or is asked for again where there is none.
    pub(super) async fn text(&self, question: &str, default: Option<&str>) -> Result<String> {
        self.valid(question, default, |answer| Ok(answer.to_owned())).await
    }

    /// As [`Dialog::text`], asked again until `check` takes the answer.
    pub(super) async fn valid<T>(
        &self,
        question: &str,
        default: Option<&str>,
        check: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        let shown = default.filter(|default| !default.is_empty()).map(|default| format!(" [{default}]")).unwrap_or_default();
        for _ in 0..MAX_TRIES {
            let typed = self.read(&format!("? {question}{shown}: "), Echo::Shown).await?;
            let answer = if typed.is_empty() { default } else { Some(typed.as_str()) };
            let Some(answer) = answer else { continue };
            match check(answer) {
                Ok(answer) => return Ok(answer),
                Err(why) => output::say(&format!("  {why}")),
            }
        }
        Err(Failure::park(Code::Cancelled, format!("{question}: no answer that can be used in {MAX_TRIES} tries")))
    }

    /// What is not shown while it is typed; may be empty.
    pub(super) async fn secret(&self, question: &str) -> Result<String> {
        self.read(&format!("? {question} (not shown): "), Echo::Hidden).await
    }

    /// Yes or no.
    pub(super) async fn yes(&self, question: &str, default: bool) -> Result<bool> {
        let (word, shown) = if default { ("y", "Y/n") } else { ("n", "y/N") };
        let question = format!("{question} ({shown})");
        let check = |answer: &str| match answer.to_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("please answer y or n".to_owned()),
        };
        for _ in 0..MAX_TRIES {
            let typed = self.read(&format!("? {question}: "), Echo::Shown).await?;
            match check(if typed.is_empty() { word } else { &typed }) {
                Ok(answer) => return Ok(answer),
                Err(why) => output::say(&format!("  {why}")),
            }
        }
        Ok(false)
    }

    /// One of several, by its number; the first where nothing is typed.
    pub(super) async fn choose(&self, question: &str, options: &[String]) -> Result<usize> {
        for (number, option) in options.iter().enumerate() {
            output::say(&format!("  {}  {option}", number + 1));
        }
        let last = options.len();
        let number = |answer: &str| match answer.parse::<usize>() {
            Ok(number) if (1..=last).contains(&number) => Ok(number - 1),
            _ => Err(format!("please answer with a number from 1 to {last}")),
        };
        self.valid(question, Some("1"), number).await
    }

    /// One line. Reading blocks a thread, which a signal leaves behind.
    async fn read(&self, prompt: &str, echo: Echo) -> Result<String> {
        // What is pasted before the question is read is not shown either, and a signal gives the terminal its echo back.
        let quiet = (echo == Echo::Hidden).then(Quiet::begin).transpose();
        let quiet = quiet.map_err(|error| Failure::park(Code::Cancelled, "hiding what is typed").caused_by(error))?;
        let _ = write!(io::stderr(), "{prompt}");
        let _ = io::stderr().flush();
        let reading = tokio::task::spawn_blocking(move || match echo {
            Echo::Shown => shown_line(),
            Echo::Hidden => hidden_line(),
        });
        let given_up = || Failure::park(Code::Cancelled, "told to stop; what was answered so far is not kept");
        let Some(read) = self.stop.run_until_cancelled(reading).await else {
            output::say("");
            return Err(given_up());
        };
        let failed = |error: io::Error| Failure::park(Code::Cancelled, "reading the answer").caused_by(error);
        if quiet.is_some() {
            output::say("");
        }
        let line = read.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        if line.len() > MAX_ANSWER_BYTES {
            return Err(failed(io::Error::other(format!("it is longer than {MAX_ANSWER_BYTES} bytes"))));
        }
        Ok(line.trim().to_owned())
    }
}

fn shown_line() -> io::Result<String> {
    let mut line = String::new();
    let mut limited = io::Read::take(io::stdin().lock(), MAX_ANSWER_BYTES as u64 + 1);
    if limited.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal was closed"));
    }
    Ok(line)
}

/// The terminal does not show what is typed, as long as this lives.
#[cfg(unix)]
struct Quiet(rustix::termios::Termios);

#[cfg(unix)]
impl Quiet {
    fn begin() -> io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

#[cfg(unix)]
fn hidden_line() -> io::Result<String> {
    shown_line()
}

/// Windows hides a line while it is read, and gives the terminal back by itself.
#[cfg(not(unix))]
struct Quiet;

#[cfg(not(unix))]
impl Quiet {
    #[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
    fn begin() -> io::Result<Self> {
        Ok(Self)
    }
}

#[cfg(not(unix))]
fn hidden_line() -> io::Result<String> {
    console::Term::stderr().read_secure_line()
}
