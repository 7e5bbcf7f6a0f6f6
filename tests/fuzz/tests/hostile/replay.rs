//! Every target over its committed corpus, over random bytes, and over mutations of valid inputs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use towpath_fuzz::{TARGETS, Target, target};

/// Random inputs for each target, of each kind.
const CASES: u32 = 48;
/// The most edits of one mutation.
const MOST_EDITS: usize = 6;
/// Values that sit on a limit of some length field.
const EDGES: [&[u8]; 8] =
    [&[0], &[0xff], &[0x7f, 0xff, 0xff, 0xff], &[0xff; 4], &[0; 4], &[0x80], b"18446744073709551616", b"\"\\u0000\""];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus().join(target.name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{} has no corpus: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Cut(Index),
    Edge(Index, usize),
    Splice(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1_usize..16).prop_map(|(at, count)| Edit::Remove(at, count)),
        (at(), 1_usize..64).prop_map(|(at, count)| Edit::Repeat(at, count)),
        at().prop_map(Edit::Cut),
        (at(), 0..EDGES.len()).prop_map(|(at, edge)| Edit::Edge(at, edge)),
        (at(), at(), at()).prop_map(|(other, from, at)| Edit::Splice(other, from, at)),
    ]
}

fn mutated(seeds: &[Vec<u8>], seed: Index, edits: &[Edit], most: usize) -> Vec<u8> {
    let mut bytes = seed.get(seeds).clone();
    for edit in edits {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match edit {
            Edit::Set(at, byte) => {
                let at = place(at);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Edit::Insert(at, more) => drop(bytes.splice(place(at)..place(at), more.iter().copied())),
            Edit::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Edit::Repeat(at, count) => {
                let at = place(at);
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Edit::Cut(at) => bytes.truncate(place(at)),
            Edit::Edge(at, edge) => {
                let at = place(at);
                let end = (at + EDGES[*edge].len()).min(bytes.len());
                bytes.splice(at..end, EDGES[*edge].iter().copied());
            }
            Edit::Splice(other, from, at) => {
                let other = other.get(seeds);
                let (at, from) = (place(at), from.index(other.len() + 1));
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes.truncate(most);
    bytes
}

fn run(target: &Target, strategy: impl Strategy<Value = Vec<u8>>) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tried = runner.run(&strategy, |bytes| {
        let shown = bytes.clone();
        std::panic::catch_unwind(|| target.run(&bytes))
            .map_err(|_| TestCaseError::fail(format!("{}: {}", target.name, shown.escape_ascii())))
    });
    tried.unwrap_or_else(|error| panic!("{}: {error}", target.name));
}

/// The whole check of one target.
fn check(name: &str) {
    let target = target(name).unwrap();
    let seeds = target.seeds();
    assert!(!seeds.is_empty() && seeds.iter().all(|seed| seed.len() <= target.most), "{name}");
    for seed in &seeds {
        target.run(seed);
    }
    for (path, bytes) in inputs(target) {
        assert!(bytes.len() <= target.most, "{} is longer than {} bytes", path.display(), target.most);
        // Which input it is stands above the message of the panic.
        println!("{}", path.display());
        target.run(&bytes);
    }
    run(target, vec(any::<u8>(), 0..target.most.min(600)));
    let most = target.most;
    run(target, (any::<Index>(), vec(edit(), 1..MOST_EDITS)).prop_map(move |(seed, edits)| mutated(&seeds, seed, &edits, most)));
}

macro_rules! targets {
    ($($test:ident $name:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )+

        const TESTED: &[&str] = &[$($name),+];
    };
}

targets! {
    agent_config "agent-config",
    allowed_signers "allowed-signers",
    announcement "announcement",
    api_body "api-body",
    control "control",
    csv "csv",
    decimal "decimal",
    dropped_csv "dropped-csv",
    dropped_value "dropped-value",
    enrolment_code "enrolment-code",
    enrolment_proof "enrolment-proof",
    first_bytes "first-bytes",
    http_connect "http-connect",
    identifiers "identifiers",
    manifest "manifest",
    md5sums "md5sums",
    names "names",
    no_proxy "no-proxy",
    packed_list "packed-list",
    plain_http "plain-http",
    public_key "public-key",
    query "query",
    receipt "receipt",
    receiver_config "receiver-config",
    relay_answer "relay-answer",
    relay_config "relay-config",
    release "release",
    schedule "schedule",
    sftp_client "sftp-client",
    sftp_server "sftp-server",
    sftp_server_general "sftp-server-general",
    socks5 "socks5",
    ssh_server "ssh-server",
    sshsig "sshsig",
    token "token",
    unpack "unpack",
    webhook "webhook",
}

#[test]
fn every_target_is_tested_and_has_a_corpus_and_nothing_else_has() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert_eq!(names, TESTED.iter().copied().collect());
    let folders: Vec<String> =
        fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, folders.iter().map(String::as_str).collect());
    assert!(TARGETS.iter().all(|target| !inputs(target).is_empty()));
}
