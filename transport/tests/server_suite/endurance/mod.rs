//! Many large transfers with each of the clients that have stood still with other servers.
//!
//! The tests named `long_…` are the whole of it and run with `cargo xtask test --long`; those named `interop_…` are the same with fewer
//! transfers. Figures go to the output: `--nocapture` shows them.

mod clients;
mod course;

use std::{path::Path, time::Duration};

use async_trait::async_trait;

use self::{
    clients::{Client, OpenSsh, Ours, Paramiko, Session},
    course::Ground,
};
use crate::{program::Server, support::UserKey};

/// Transfers each way of a long test, and of a short one.
const LONG_ROUNDS: usize = 100;
const SHORT_ROUNDS: usize = 3;
/// What a long test does where nobody asked for the long form: enough to see that it works.
const PROBE_ROUNDS: usize = 1;
/// The size of each file, to which a little is added.
const FILE_BYTES: u64 = 100_000_000;
/// A transfer that has not ended after this long stands still. Most take about a second. paramiko needs half a minute for a `get`
/// when answers overtake its requests, with any server: it then takes its read-ahead for finished, asks for one block at a time, and
/// loses 40 ms to Nagle's algorithm at each window adjustment.
const STALL_BOUND: Duration = Duration::from_mins(2);
/// Set by `cargo xtask test --long`.
const LONG_VARIABLE: &str = "TOWPATH_LONG";

fn long_rounds() -> usize {
    if std::env::var_os(LONG_VARIABLE).is_some() {
        return LONG_ROUNDS;
    }
    println!("{LONG_VARIABLE} is not set: {PROBE_ROUNDS} transfer each way instead of {LONG_ROUNDS}");
    PROBE_ROUNDS
}

async fn endure(rounds: usize, client: impl AsyncFn(&Server, &Ground) -> Result<[usize; 2], String>) {
    let ground = Ground::new(FILE_BYTES);
    let server = Server::start(ground.root.path()).await;
    match client(&server, &ground).await {
        Ok(carried) => assert_eq!(carried, [rounds; 2]),
        Err(problem) => panic!("{problem}"),
    }
}

async fn course(client: &dyn Client, ground: &Ground, rounds: usize) -> Result<[usize; 2], String> {
    Ok(course::run(client, ground, rounds, STALL_BOUND).await?.map(|figures| figures.transfers))
}

async fn sftp(rounds: usize, options: &'static [&'static str]) {
    endure(rounds, async |server, ground| course(&OpenSsh { server, options }, ground, rounds).await).await;
}

async fn paramiko(rounds: usize) {
    endure(rounds, async |server, ground| course(&Paramiko { server }, ground, rounds).await).await;
}

async fn our_client(rounds: usize) {
    endure(rounds, async |server, ground| course(&Ours { server }, ground, rounds).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_sftp_carries_large_files() {
    sftp(SHORT_ROUNDS, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_sftp_with_256_requests_carries_large_files() {
    sftp(SHORT_ROUNDS, &["-R", "256"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_paramiko_carries_large_files() {
    paramiko(SHORT_ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_our_client_carries_large_files() {
    our_client(SHORT_ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_sftp_never_stands_still() {
    sftp(long_rounds(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_sftp_with_256_requests_never_stands_still() {
    sftp(long_rounds(), &["-R", "256"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_paramiko_never_stands_still() {
    paramiko(long_rounds()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_our_client_never_stands_still() {
    our_client(long_rounds()).await;
}

/// A client without a network, which copies files and does one thing wrong.
struct Faulty<'g> {
    ground: &'g Ground,
    fault: Fault,
}

#[derive(Clone, Copy)]
enum Fault {
    None,
    SecondGetNeverEnds,
    SecondPutChangesAByte,
    GetLeavesNothing,
}

struct FaultySession {
    root: std::path::PathBuf,
    fault: Fault,
    puts: usize,
    gets: usize,
}

#[async_trait]
impl Client for Faulty<'_> {
    fn name(&self) -> String {
        "faulty".to_owned()
    }

    async fn log_in(&self) -> Result<Box<dyn Session>, String> {
        Ok(Box::new(FaultySession { root: self.ground.root.path().to_owned(), fault: self.fault, puts: 0, gets: 0 }))
    }
}

#[async_trait]
impl Session for FaultySession {
    async fn put(&mut self, local: &Path, remote: &str) -> Result<(), String> {
        self.puts += 1;
        let mut bytes = std::fs::read(local).unwrap();
        if matches!(self.fault, Fault::SecondPutChangesAByte) && self.puts == 2 {
            bytes[777] ^= 1;
        }
        std::fs::write(self.root.join(remote.trim_start_matches('/')), bytes).unwrap();
        Ok(())
    }

    async fn get(&mut self, remote: &str, local: &Path) -> Result<(), String> {
        self.gets += 1;
        match self.fault {
            Fault::SecondGetNeverEnds if self.gets == 2 => {
                std::fs::write(local, b"beginning").unwrap();
                std::future::pending::<()>().await;
            }
            Fault::GetLeavesNothing => {}
            _ => drop(std::fs::copy(self.root.join(remote.trim_start_matches('/')), local).unwrap()),
        }
        Ok(())
    }

    async fn log_out(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test]
async fn what_goes_wrong_is_named() {
    let ground = Ground::new(1000);
    let run = async |fault, bound| course::run(&Faulty { ground: &ground, fault }, &ground, 3, bound).await.map(|_| ());
    assert_eq!(run(Fault::None, STALL_BOUND).await, Ok(()));
    for (fault, bound, expected) in [
        (
            Fault::SecondGetNeverEnds,
            Duration::from_millis(300),
            "faulty: get 2 of 3: it stands still: no end within 300ms (9 of 25690 bytes arrived)",
        ),
        (Fault::SecondPutChangesAByte, STALL_BOUND, "faulty: put 2 of 3: the copy differs: 25690 bytes with SHA-256 "),
        (Fault::GetLeavesNothing, STALL_BOUND, "faulty: get 1 of 3: there is no copy: "),
    ] {
        let problem = run(fault, bound).await.unwrap_err();
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[tokio::test]
async fn a_missing_python_is_said_with_its_remedy() {
    let problem = clients::python(None).unwrap_err();
    assert!(problem.contains("TOWPATH_INTEROP_PYTHON") && problem.contains("run cargo xtask test"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_a_client_that_is_not_let_in_is_named() {
    let ground = Ground::new(1000);
    let mut server = Server::start(ground.root.path()).await;
    server.key = UserKey::ed25519();
    let problem = course(&OpenSsh { server: &server, options: &["-R", "256"] }, &ground, 1).await.unwrap_err();
    assert!(problem.starts_with("sftp -R 256: logging in for number 1: "), "{problem}");
    let problem = course(&Ours { server: &server }, &ground, 1).await.unwrap_err();
    assert!(problem.starts_with("our client: logging in for number 1: "), "{problem}");
}
