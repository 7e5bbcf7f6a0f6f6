//! OpenSSH's own programs against the server.

use std::{path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;
use towpath_transfer::digest::Sha256Digest;
use towpath_transport::server::{AnyPath, Limits, PlainDirectory, Session, VirtualFs};

use super::support::{RealClock, TestServer, UserKey, openssh, sftp, start};

/// A server over `root` with names of any kind, and a folder for the client's side.
async fn serve(root: &Path, key: &UserKey) -> TestServer {
    let revoked = CancellationToken::new();
    let view: Arc<dyn VirtualFs<AnyPath>> = Arc::new(PlainDirectory::new(root));
    let session = Session::general(view, revoked.clone());
    start(session, revoked, &[key], Limits::default(), Arc::new(RealClock::new())).await
}

/// Bytes that no shift or repetition leaves equal.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(bytes).collect()
}

fn digest(path: &Path) -> Sha256Digest {
    Sha256Digest::of(&std::fs::read(path).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_folders_behave_as_on_any_server() {
    let (root, local, key) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), UserKey::ed25519());
    let server = serve(root.path(), &key).await;
    let here = |name: &str| local.path().join(name);
    let there = |name: &str| root.path().join(name);
    std::fs::write(here("a"), noise(300_000)).unwrap();
    std::fs::write(here("empty"), b"").unwrap();
    let l = local.path().display();
    let out = sftp(
        server.address,
        &key,
        &[],
        &format!(
            "pwd\nmkdir in\nput {l}/a in/a\nput {l}/empty\nput {l}/a \"in/sp ace \\\" ü\"\nls -l in\nrename in/a in/b\n\
             ln -s b in/link\nln in/b in/hard\nchmod 600 in/b\nget in/b {l}/back\nget -p in/link {l}/linked\n\
             get empty {l}/empty2\ndf\nrm in/hard\n"
        ),
    )
    .await;
    assert!(out.contains("Remote working directory: /"), "{out}");
    assert!(out.contains("300000"), "{out}");
    let original = digest(&here("a"));
    for copy in [there("in/b"), there("in/sp ace \" ü"), there("in/link"), here("back"), here("linked")] {
        assert_eq!(digest(&copy), original, "{}", copy.display());
    }
    assert_eq!(std::fs::read_link(there("in/link")).unwrap(), Path::new("b"));
    assert_eq!(std::fs::metadata(here("empty2")).unwrap().len(), 0);
    assert!(!there("in/hard").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_resumes_both_ways() {
    let (root, local, key) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), UserKey::ed25519());
    let server = serve(root.path(), &key).await;
    let whole = noise(3_000_000);
    std::fs::write(local.path().join("up"), &whole).unwrap();
    std::fs::write(root.path().join("up"), &whole[..1_234_567]).unwrap();
    std::fs::write(root.path().join("down"), &whole).unwrap();
    std::fs::write(local.path().join("down"), &whole[..2_345_678]).unwrap();
    let l = local.path().display();
    sftp(server.address, &key, &[], &format!("reput {l}/up up\nreget down {l}/down\n")).await;
    for path in [root.path().join("up"), local.path().join("down")] {
        assert!(std::fs::read(&path).unwrap() == whole, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_do_not_stall_whatever_is_in_flight() {
    let (root, local, key) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), UserKey::ed25519());
    let server = serve(root.path(), &key).await;
    let big = local.path().join("big");
    std::fs::write(&big, noise(100 * 1024 * 1024)).unwrap();
    let original = digest(&big);
    let l = local.path().display();
    for (number, options) in
        [&[][..], &["-R", "256"], &["-R", "256", "-B", "32768"], &["-R", "256", "-o", "RekeyLimit=4M"]].into_iter().enumerate()
    {
        sftp(server.address, &key, options, &format!("put {l}/big up{number}\nget up{number} {l}/down{number}\n")).await;
        for path in [root.path().join(format!("up{number}")), local.path().join(format!("down{number}"))] {
            assert_eq!(digest(&path), original, "{options:?}");
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_sftp_is_offered() {
    let (root, key) = (tempfile::tempdir().unwrap(), UserKey::ed25519());
    let server = serve(root.path(), &key).await;
    for arguments in [
        &["tester@127.0.0.1", "id"][..],
        &["tester@127.0.0.1"],
        &["-tt", "tester@127.0.0.1"],
        &["-s", "tester@127.0.0.1", "netconf"],
        &["-W", "127.0.0.1:22", "tester@127.0.0.1"],
        &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "tester@127.0.0.1"],
    ] {
        let (good, out, _) = openssh("ssh", server.address, &key.path, arguments, "").await;
        assert!(!good, "{arguments:?}");
        assert_eq!(out, "", "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_decide_who_gets_in() {
    let root = tempfile::tempdir().unwrap();
    for kind in [&["-t", "ed25519"][..], &["-t", "rsa", "-b", "2048"]] {
        let (key, other) = (UserKey::new(kind), UserKey::new(kind));
        let server = serve(root.path(), &key).await;
        sftp(server.address, &key, &[], "pwd\n").await;
        let (good, _, errors) = openssh("sftp", server.address, &other.path, &["-b", "-", "tester@127.0.0.1"], "pwd\n").await;
        assert!(!good && errors.contains("Permission denied"), "{errors}");
    }
}
