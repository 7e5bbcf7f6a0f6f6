#![cfg(unix)]

use std::{
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixListener as PlainListener,
    },
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{net::UnixStream, sync::Barrier, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use towpath_transfer::clock::ManualClock;

use super::*;

/// Answers as a test says.
#[derive(Debug)]
enum Scripted {
    /// Done.
    Done,
    /// With a failure.
    Fails,
    /// Only when so many are asking at once.
    Together(Barrier),
    /// Never.
    Never,
}

#[async_trait]
impl Answers for Scripted {
    async fn answer(&self, request: Request) -> Result<Answer> {
        assert_eq!(request, Request::Wake);
        match self {
            Self::Done => {}
            Self::Fails => return Err(Failure::retry(Code::DiskFull, "writing").caused_by("no space")),
            Self::Together(barrier) => {
                barrier.wait().await;
            }
            Self::Never => std::future::pending().await,
        }
        Ok(Answer::Done)
    }
}

struct Bench {
    layout: Layout,
    clock: ManualClock,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(answers: Scripted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        Self::at(layout, folder, answers)
    }

    fn at(layout: Layout, folder: tempfile::TempDir, answers: Scripted) -> Self {
        let (clock, stop) = (ManualClock::new(Timestamp::UNIX_EPOCH), CancellationToken::new());
        let listener = Listener::new(&layout, Arc::new(clock.clone())).unwrap();
        let server = tokio::spawn(listener.serve(Arc::new(answers), stop.clone()));
        Self { layout, clock, stop, server, _folder: folder }
    }

    async fn ask(&self) -> Result<Answer> {
        ask(&self.layout, &self.clock, &Request::Wake).await
    }

    /// What is answered to these bytes.
    async fn told(&self, bytes: &[u8]) -> Result<Said> {
        let mut stream = BufReader::new(UnixStream::connect(self.layout.control()).await.unwrap());
        stream.write_all(bytes).await.unwrap();
        let answer = self.while_time_passes(read_line(&mut stream, MAX_ANSWER_BYTES)).await;
        parse(&answer.unwrap(), "the answer")
    }

    async fn refused(&self, bytes: &[u8]) -> FailureRecord {
        match self.told(bytes).await.unwrap() {
            Said::Failure(told) => told,
            Said::Answer(answer) => panic!("{answer:?}"),
        }
    }

    async fn while_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        let pump = async {
            loop {
                self.clock.advance(Duration::from_millis(100));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = pump => unreachable!("the clock never stops"),
        }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn a_command_is_answered_and_only_the_owner_sees_the_socket() {
    let bench = Bench::new(Scripted::Done);
    for _ in 0..3 {
        assert_eq!(bench.ask().await.unwrap(), Answer::Done);
    }
    let socket = std::fs::metadata(bench.layout.control()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(socket.uid(), rustix::process::geteuid().as_raw());
    bench.stop.cancel();
    bench.server.await.unwrap();
    assert!(!bench.layout.control().exists());
    assert_eq!(code(ask(&bench.layout, &bench.clock, &Request::Wake).await), Code::NotRunning);
}

#[tokio::test]
async fn nobody_who_listens_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    for folder in [folder.path().to_owned(), folder.path().join("not made yet"), folder.path().join("x".repeat(200))] {
        let failure = ask(&Layout::new(&folder), &clock, &Request::Wake).await.unwrap_err();
        assert_eq!(failure.code(), Code::NotRunning);
        assert!(failure.report().contains("start its service, or run: towpath-agent run"), "{}", failure.report());
    }
}

#[tokio::test]
async fn a_socket_that_a_killed_process_has_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    // The standard library leaves the file where it is, as a process does that is killed.
    drop(PlainListener::bind(layout.control()).unwrap());
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    assert_eq!(code(ask(&layout, &clock, &Request::Wake).await), Code::NotRunning);
    drop(PlainListener::bind(folder.path().join("control.sock.new")).unwrap());
    let bench = Bench::at(layout, folder, Scripted::Done);
    assert_eq!(bench.ask().await.unwrap(), Answer::Done);
}

#[tokio::test]
async fn a_state_folder_with_a_long_path_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let bench = Bench::at(Layout::new(&deep), folder, Scripted::Done);
    assert_eq!(bench.ask().await.unwrap(), Answer::Done);
}

#[tokio::test]
async fn two_are_served_at_once() {
    let bench = Bench::new(Scripted::Together(Barrier::new(2)));
    let (first, second) = tokio::join!(bench.ask(), bench.ask());
    assert_eq!((first.unwrap(), second.unwrap()), (Answer::Done, Answer::Done));
}

#[tokio::test]
async fn those_beyond_the_most_wait_for_the_silent_ones_to_be_given_up() {
    let bench = Bench::new(Scripted::Done);
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(UnixStream::connect(bench.layout.control()).await.unwrap());
    }
    let answer = bench.told(b"{\"version\":1,\"request\":\"wake\"}\n").await.unwrap();
    assert!(matches!(answer, Said::Answer(Answer::Done)), "{answer:?}");
    drop(silent);
}

#[tokio::test]
async fn whatever_is_no_request_is_refused_with_a_word() {
    let bench = Bench::new(Scripted::Done);
    let too_long = [vec![b' '; MAX_REQUEST_BYTES], b"\n".to_vec()].concat();
    for (bytes, word) in [
        (&b"GET / HTTP/1.1\r\n"[..], "not of the control channel"),
        (b"\xff\xfe\n", "not of the control channel"),
        (b"{}\n", "not of the control channel"),
        (b"\n", "not of the control channel"),
        (&too_long, "longer than 65536 bytes"),
        (b"", "no request within 5 seconds"),
        (b"{\"version\":1,\"request\":\"wake\"}", "no request within 5 seconds"),
        (b"{\"version\":1,\"request\":\"dance\"}\n", "different versions of Towpath; restart the service"),
        (b"{\"version\":1}\n", "different versions of Towpath; restart the service"),
        (b"{\"version\":2,\"request\":{\"new\":1}}\n", "is of version 2 of the control channel, and this side knows 1"),
    ] {
        let told = bench.refused(bytes).await;
        assert_eq!(told.code, Code::RequestInvalid);
        assert!(told.report.contains(word), "{}", told.report);
    }
    assert_eq!(bench.ask().await.unwrap(), Answer::Done);
}

#[tokio::test]
async fn a_failure_comes_back_as_it_was() {
    let bench = Bench::new(Scripted::Fails);
    let failure = bench.ask().await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::DiskFull, Disposition::Retry));
    assert_eq!(failure.report(), "writing: no space [disk-full]");
}

#[tokio::test]
async fn work_without_an_end_is_given_up() {
    let bench = Bench::new(Scripted::Never);
    let told = bench.refused(b"{\"version\":1,\"request\":\"wake\"}\n").await;
    assert_eq!((told.code, told.disposition), (Code::Cancelled, Disposition::Retry));
    // And it does not keep the agent from stopping.
    let asked = UnixStream::connect(bench.layout.control()).await.unwrap();
    bench.stop.cancel();
    bench.server.await.unwrap();
    drop(asked);
}

/// Something that listens and is no agent of this version.
async fn answered_by(answer: &'static [u8], folder: &Path) -> Result<Answer> {
    let layout = Layout::new(folder);
    let listener = tokio::net::UnixListener::bind(layout.control()).unwrap();
    let other = async {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        read_line(&mut stream, MAX_REQUEST_BYTES).await.unwrap();
        // A mebibyte does not fit into the socket's buffer, and who has read enough hangs up.
        let _ = stream.write_all(answer).await;
    };
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let (answer, ()) = tokio::join!(ask(&layout, &clock, &Request::Wake), other);
    std::fs::remove_file(layout.control()).unwrap();
    answer
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_by_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let endless = vec![b'x'; MAX_ANSWER_BYTES + 1].leak();
    for (answer, expected) in [
        (&b"garbage\n"[..], Code::RequestInvalid),
        (b"{\"version\":7,\"answer\":\"done\"}\n", Code::RequestInvalid),
        (b"{\"version\":1,\"answer\":\"unheard of\"}\n", Code::RequestInvalid),
        (b"", Code::NotRunning),
        (b"{\"version\":1", Code::NotRunning),
        (endless, Code::NotRunning),
    ] {
        assert_eq!(code(answered_by(answer, folder.path()).await), expected);
    }
}

#[test]
fn a_pipe_is_named_after_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let name = pipe_name(folder.path());
    assert!(name.starts_with(r"\\.\pipe\towpath-agent-") && name.len() < 256, "{name}");
    assert_eq!(pipe_name(&folder.path().join(".")), name);
    assert_ne!(pipe_name(Path::new("/somewhere/else")), name);
}
