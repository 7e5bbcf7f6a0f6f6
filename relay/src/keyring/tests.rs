use std::{fs, path::PathBuf, sync::Arc};

use towpath_keys::{KeyKind, follow_announcement};
use towpath_transfer::{
    Code, Failure,
    announcement::{Announcement, RelayKeys},
    clock::{ManualClock, SeededEntropy},
    failure::Result,
};
use towpath_transport::files::{Disk, FaultFiles, FileFault, FileOp};

use super::*;
use crate::config::TlsSection;

const URL: &str = "https://relay.example";

struct Bench {
    folder: KeyFolder,
    dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let folder = KeyFolder {
        files: Arc::new(Disk),
        state: dir.path().join("state"),
        tls: TlsSection::default(),
        public_url: URL.into(),
        clock: Arc::new(ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap())),
        entropy: Arc::new(SeededEntropy::new(11)),
    };
    fs::create_dir_all(folder.state.join("host_keys")).unwrap();
    Bench { folder, dir }
}

impl Bench {
    /// The same folder in a process that dies at its `n`th effect.
    fn dying_at(&self, n: usize) -> KeyFolder {
        let mut effects = 0;
        let plan = move |op: FileOp, _: &std::path::Path| {
            effects += usize::from(op.is_effect());
            (effects >= n).then_some(FileFault::Before(std::io::ErrorKind::Other))
        };
        KeyFolder { files: Arc::new(FaultFiles::new(Arc::new(Disk), Box::new(plan))), ..self.folder.clone() }
    }

    fn signers(&self) -> PathBuf {
        self.dir.path().join("allowed_signers")
    }

    /// An end that enrolled when the relay showed this.
    fn enrolled(present: &Present) -> RelayKeys {
        RelayKeys {
            serial: 0,
            ssh_host_keys: present.host_keys.public_lines().to_vec(),
            receipt_keys: vec![present.receipt_key.public_line().clone()],
            spki_pins: vec![present.certificate.spki],
        }
    }

    /// What the end has pinned once it has taken the newest announcement.
    fn follow(&self, end: &RelayKeys, present: &Present) -> Result<RelayKeys> {
        let newer = follow_announcement(&present.announced.signed, URL, end, &self.signers())?;
        Ok(newer.unwrap_or_else(|| end.clone()))
    }
}

/// Whether the end believes everything that is shown.
fn believes(end: &RelayKeys, present: &Present) -> bool {
    present.host_keys.public_lines().iter().all(|line| end.ssh_host_keys.contains(line))
        && end.receipt_keys.contains(present.receipt_key.public_line())
        && end.spki_pins.contains(&present.certificate.spki)
}

fn code_of<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|failure: Failure| failure.code())
}

#[test]
fn each_key_is_announced_switched_to_and_announced_no_more() {
    let bench = bench();
    let first = bench.folder.look(None).unwrap();
    assert_eq!((first.announced.serial, first.rows.len()), (1, 4));
    let mut end = Bench::enrolled(&first);
    let mut last = 1;
    for what in KeyUse::ALL {
        let before = bench.folder.look(None).unwrap();
        assert_eq!(before.announced.serial, last);
        assert_eq!(code_of(bench.folder.switch(what)), Some(Code::NotFound));
        let announced = bench.folder.announce(what, None).unwrap();
        assert_eq!(announced.next_since(what), Some(announced.announced.serial));
        assert!(announced.announced.serial > last);
        // Announcing again is the same announcement.
        assert_eq!(bench.folder.announce(what, None).unwrap().announced, announced.announced);
        assert!(believes(&Bench::enrolled(&before), &announced), "nothing is shown yet");
        end = bench.follow(&end, &announced).unwrap();
        let switched = bench.folder.switch(what).unwrap();
        assert!(believes(&end, &switched) && !believes(&Bench::enrolled(&before), &switched), "{what}");
        assert!(switched.rows.iter().all(|row| !row.next) && switched.strangers.is_empty());
        // Whoever has not seen the second announcement takes it from the switched relay.
        let later = bench.follow(&end, &switched).unwrap();
        last = switched.announced.serial;
        assert!(last > announced.announced.serial);
        assert_eq!(later, RelayKeys { serial: last, ..Bench::enrolled(&switched) });
    }
    assert!(!bench.folder.state.join("next/host").exists() && !bench.folder.state.join("switching/host").exists());
}

#[test]
fn an_end_that_saw_all_three_before_believes_all_three_after() {
    let bench = bench();
    let end = Bench::enrolled(&bench.folder.look(None).unwrap());
    let mut seen = end;
    for what in KeyUse::ALL {
        let present = bench.folder.announce(what, None).unwrap();
        seen = bench.follow(&seen, &present).unwrap();
    }
    for what in KeyUse::ALL {
        // The announcements that follow change nothing for keys that were named before.
        assert!(bench.folder.look(None).unwrap().next_since(what).unwrap() <= seen.serial);
        let present = bench.folder.switch(what).unwrap();
        assert!(believes(&seen, &present), "{what}");
        bench.follow(&seen, &present).unwrap();
    }
}

/// Copies a folder with everything in it.
fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_relay_that_was_put_back_gives_no_number_twice() {
    let bench = bench();
    let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
    let by_night = KeyFolder { clock: Arc::new(clock.clone()), ..bench.folder.clone() };
    by_night.announce(KeyUse::Host, None).unwrap();
    let backup = bench.dir.path().join("backup");
    copied(&by_night.state, &backup);
    clock.advance(std::time::Duration::from_secs(3_600));
    let lost = by_night.announce(KeyUse::Receipt, None).unwrap();
    let end = bench.follow(&Bench::enrolled(&lost), &lost).unwrap();
    clock.advance(std::time::Duration::from_secs(3_600));
    let back = KeyFolder { state: backup, entropy: Arc::new(SeededEntropy::new(12)), ..by_night };
    let again = back.announce(KeyUse::Receipt, None).unwrap();
    assert!(again.announced.serial > lost.announced.serial, "the end would not look at it");
    let end = bench.follow(&end, &again).unwrap();
    assert!(believes(&end, &back.switch(KeyUse::Receipt).unwrap()));
}

#[test]
fn a_next_key_is_taken_back() {
    let bench = bench();
    let first = bench.folder.look(None).unwrap();
    assert_eq!(code_of(bench.folder.withdraw(KeyUse::Host)), Some(Code::NotFound));
    let announced = bench.folder.announce(KeyUse::Host, None).unwrap();
    let back = bench.folder.withdraw(KeyUse::Host).unwrap();
    assert!(back.announced.serial > announced.announced.serial && back.rows.len() == 4);
    assert_eq!(back.host_keys.public_lines(), first.host_keys.public_lines());
    assert_eq!(code_of(bench.folder.switch(KeyUse::Host)), Some(Code::NotFound));
}

#[test]
fn a_process_that_dies_at_any_step_leaves_a_relay_that_shows_pinned_keys() {
    for what in KeyUse::ALL {
        let mut deaths = 0;
        for n in 1.. {
            let bench = bench();
            let end = Bench::enrolled(&bench.folder.look(None).unwrap());
            let died_early = bench.dying_at(n).announce(what, None).is_err();
            let announced = bench.folder.announce(what, None).unwrap();
            let end = bench.follow(&end, &announced).unwrap();
            let died_late = bench.dying_at(n).switch(what).is_err();
            let present = bench.folder.look(None).unwrap();
            assert!(believes(&end, &present), "{what}, effect {n}");
            // The next announcement follows the one that the end has, whatever was half done.
            let end = bench.follow(&end, &present).unwrap();
            if present.next_since(what).is_some() {
                bench.folder.switch(what).unwrap();
            }
            let present = bench.folder.look(None).unwrap();
            assert!(believes(&end, &present) && present.next_since(what).is_none(), "{what}, effect {n}");
            assert!(!believes(&Bench::enrolled(&announced), &present));
            deaths += usize::from(died_late);
            if !died_early && !died_late {
                break;
            }
        }
        assert!(deaths > 3, "{what}: {deaths}");
    }
}

fn configured(bench: &Bench, pin: bool) -> (KeyFolder, PathBuf, PathBuf) {
    let (chain, key) = (bench.dir.path().join("chain.pem"), bench.dir.path().join("key.pem"));
    renew(&chain, &key);
    let tls = TlsSection { certificate: Some(chain.clone()), key: Some(key.clone()), pin };
    (KeyFolder { tls, ..bench.folder.clone() }, chain, key)
}

/// What an ACME client does: other files under the same names.
fn renew(chain: &std::path::Path, key: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).unwrap();
    fs::write(chain, made.cert.pem()).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn a_certificate_from_files_is_switched_in_both_files_whatever_dies() {
    for n in 1.. {
        let bench = bench();
        let (folder, chain, key) = configured(&bench, true);
        let end = Bench::enrolled(&folder.look(None).unwrap());
        let next = (bench.dir.path().join("next-chain.pem"), bench.dir.path().join("next-key.pem"));
        renew(&next.0, &next.1);
        assert_eq!(code_of(folder.announce(KeyUse::Certificate, Some((&next.0, &key)))), Some(Code::KeyInvalid));
        let announced = folder.announce(KeyUse::Certificate, Some((&next.0, &next.1))).unwrap();
        let again = folder.announce(KeyUse::Certificate, Some((&next.0, &next.1)));
        assert_eq!(code_of(again), Some(Code::RequestInvalid));
        let end = bench.follow(&end, &announced).unwrap();
        let dying = KeyFolder { files: bench.dying_at(n).files, ..folder.clone() };
        let died = dying.switch(KeyUse::Certificate).is_err();
        assert!(believes(&end, &folder.look(None).unwrap()), "effect {n}");
        if !died {
            assert_eq!(fs::read(&chain).unwrap(), fs::read(&next.0).unwrap());
            assert_eq!(fs::read(&key).unwrap(), fs::read(&next.1).unwrap());
            break;
        }
    }
}

#[test]
fn an_announced_certificate_that_is_put_in_place_by_hand_is_switched() {
    let bench = bench();
    let (folder, chain, key) = configured(&bench, true);
    folder.look(None).unwrap();
    let next = (bench.dir.path().join("a.pem"), bench.dir.path().join("b.pem"));
    renew(&next.0, &next.1);
    let announced = folder.announce(KeyUse::Certificate, Some((&next.0, &next.1))).unwrap();
    fs::copy(&next.0, &chain).unwrap();
    fs::copy(&next.1, &key).unwrap();
    let present = folder.look(None).unwrap();
    assert!(present.strangers.is_empty() && present.next_since(KeyUse::Certificate).is_none());
    assert!(present.announced.serial > announced.announced.serial);
}

#[test]
fn a_renewed_certificate_is_taken_a_strange_one_named_and_a_broken_one_left() {
    for pin in [true, false] {
        let bench = bench();
        let (folder, chain, key) = configured(&bench, pin);
        let first = folder.look(None).unwrap();
        let trace = folder.trace();
        assert_eq!(folder.trace(), trace);
        fs::write(&chain, "nothing").unwrap();
        assert_ne!(folder.trace(), trace);
        let kept = folder.look(Some(&first.certificate)).unwrap();
        assert_eq!(kept.certificate.spki, first.certificate.spki);
        assert_eq!(kept.certificate_failure.map(|failure| failure.code()), Some(Code::KeyInvalid));
        assert_eq!(kept.announced, first.announced);
        assert_eq!(code_of(folder.look(None)), Some(Code::KeyInvalid));
        renew(&chain, &key);
        let renewed = folder.look(Some(&first.certificate)).unwrap();
        assert_ne!(renewed.certificate.spki, first.certificate.spki);
        // Where nobody pins it there is nobody to lose.
        assert_eq!(renewed.strangers, if pin { vec![KeyUse::Certificate] } else { vec![] });
        let announced = Announcement::parse(renewed.announced.signed.announcement.as_bytes()).unwrap();
        assert_eq!(announced.spki_pins, [renewed.certificate.spki]);
        assert!(folder.look(None).unwrap().strangers.is_empty(), "it is said once");
    }
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_written_change_nothing() {
    let bench = bench();
    let (folder, chain, key) = configured(&bench, true);
    let first = folder.look(None).unwrap();
    folder.announce(KeyUse::Certificate, None).unwrap();
    let missing = bench.dir.path().join("missing");
    fs::create_dir(&missing).unwrap();
    let tls = TlsSection { certificate: Some(missing.join("c")), key: Some(missing.join("k")), pin: true };
    fs::copy(&chain, missing.join("c")).unwrap();
    fs::copy(&key, missing.join("k")).unwrap();
    let refuse = |op: FileOp, path: &std::path::Path| {
        (op == FileOp::OpenWrite && path.parent().is_some_and(|folder| folder.ends_with("missing")))
            .then_some(FileFault::Before(std::io::ErrorKind::PermissionDenied))
    };
    let files = Arc::new(FaultFiles::new(Arc::new(Disk), Box::new(refuse)));
    let read_only = KeyFolder { tls, files, ..folder.clone() };
    let failure = read_only.switch(KeyUse::Certificate).unwrap_err();
    assert_eq!(failure.code(), Code::FileFailed);
    assert!(failure.report().contains("yourself"), "{}", failure.report());
    let present = folder.look(None).unwrap();
    assert_eq!(present.certificate.spki, first.certificate.spki);
    assert!(present.next_since(KeyUse::Certificate).is_some());
}

#[test]
fn a_damaged_announcement_is_not_begun_anew() {
    let bench = bench();
    bench.folder.look(None).unwrap();
    fs::write(bench.folder.state.join("announcement.json"), "{}").unwrap();
    assert_eq!(code_of(bench.folder.look(None)), Some(Code::FileFailed));
}

#[test]
fn another_url_is_another_announcement_and_a_key_put_there_by_hand_is_a_stranger() {
    let bench = bench();
    let first = bench.folder.look(None).unwrap();
    let moved = KeyFolder { public_url: "https://other.example".into(), ..bench.folder.clone() };
    assert!(moved.look(None).unwrap().announced.serial > first.announced.serial);
    fs::remove_file(bench.folder.state.join("receipt_key")).unwrap();
    towpath_keys::Identity::create_file(&bench.folder.state.join("receipt_key"), KeyKind::Ed25519, &SeededEntropy::new(5))
        .unwrap();
    assert_eq!(bench.folder.look(None).unwrap().strangers, [KeyUse::Receipt]);
}

#[test]
fn everybody_sees_what_is_set() {
    let bench = bench();
    let keyring = Keyring::new(bench.folder.look(None).unwrap().shown());
    let other = keyring.clone();
    let announced = bench.folder.announce(KeyUse::Host, None).unwrap();
    keyring.set(announced.shown());
    assert_eq!(other.shown().announced.as_ref().unwrap().serial, announced.announced.serial);
    assert!(!format!("{other:?}").contains("PRIVATE"));
}
