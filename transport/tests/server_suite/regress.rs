//! OpenSSH's own regression tests of SFTP, with our server where they would start theirs.
//!
//! They come with the Debian package `openssh-tests`. Each writes into the folder that it lies in, so that each runs in a copy of
//! its own; none opens a port.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use crate::{program::Server, support::until};

const SUITE: &str = "/usr/lib/openssh/regress";
/// The size of the file that the tests carry: longer than their largest buffer, so that each of their sizes cuts it, and no longer
/// than that needs, because one of their buffers has five bytes. Theirs is the program `ssh-agent`, half a megabyte.
const DATA_BYTES: usize = 70_001;
/// The socket through which sessions share a connection.
const CONNECTION: &str = "connection";
/// The slowest of them takes a few seconds.
const PATIENCE: Duration = Duration::from_mins(5);

/// A server that shows the whole disk, so that a path means the same on both sides, and one connection to it that every session of
/// the test goes through.
struct Ground {
    server: Server,
    folder: tempfile::TempDir,
    connection: Child,
}

impl Ground {
    async fn new() -> Self {
        assert!(Path::new(SUITE).is_dir(), "{SUITE} is missing: install the package openssh-tests, or run cargo xtask test");
        let (server, folder) = (Server::start(Path::new("/")).await, tempfile::tempdir().unwrap());
        let mut connection = ssh(&server, folder.path());
        connection.args(["-M", "-N", &login(&server)]).stdin(Stdio::null()).kill_on_drop(true);
        let ground = Self { connection: connection.spawn().unwrap(), server, folder };
        until(|| ground.folder.path().join(CONNECTION).exists()).await;
        ground
    }

    /// A copy of the suite.
    fn suite(&self) -> PathBuf {
        let copy = self.folder.path().join("regress");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(SUITE).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file()) {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    }

    /// What the tests take for the server: a program that speaks SFTP on its standard input and output.
    fn sftp_server(&self) -> PathBuf {
        let command = ssh(&self.server, self.folder.path());
        let options: Vec<&str> = command.as_std().get_args().map(|word| word.to_str().unwrap()).collect();
        let path = self.folder.path().join("sftp-server");
        fs::write(&path, format!("#!/bin/sh\nexec ssh {} -s {} sftp\n", options.join(" "), login(&self.server))).unwrap();
        executable(&path);
        path
    }

    /// The file that the tests carry. They take it from where `ssh-agent` should be.
    fn data(&self) -> PathBuf {
        let path = self.folder.path().join("ssh-agent");
        let bytes: Vec<u8> = (0..DATA_BYTES).map(|at| (at * at / 7 + at / 256).to_le_bytes()[0]).collect();
        fs::write(&path, bytes).unwrap();
        executable(&path);
        path
    }
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn login(server: &Server) -> String {
    format!("tester@{}", server.address.ip())
}

/// `ssh` without its destination, all of whose words can stand in a shell script as they are.
fn ssh(server: &Server, folder: &Path) -> Command {
    let mut command = Command::new("ssh");
    command
        .args(["-F", "none", "-q", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", server.folder.path().join("known_hosts").display()))
        .args(["-o", "StrictHostKeyChecking=yes", "-o"])
        .arg(format!("ControlPath={}", folder.join(CONNECTION).display()))
        .args(["-p", &server.address.port().to_string(), "-i"])
        .arg(&server.key.path);
    command
}

async fn passes(test: &str) {
    let mut ground = Ground::new().await;
    let suite = ground.suite();
    let run = Command::new("sh")
        .arg("test-exec.sh")
        .arg(&suite)
        .arg(suite.join(format!("{test}.sh")))
        .current_dir(&suite)
        .env("OBJ", &suite)
        .env("TEST_SHELL", "sh")
        .env("TEST_SSH_UNSAFE_PERMISSIONS", "1")
        .env("TEST_SSH_SFTPSERVER", ground.sftp_server())
        .env("TEST_SSH_SSHAGENT", ground.data())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("the test takes too long").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.lines().any(|line| line.starts_with("ok ")), "{}: {said}", output.status);
    // It cannot end by itself before the server does; where it could not log in, every session made a connection of its own.
    assert!(ground.connection.try_wait().unwrap().is_none(), "the shared connection is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_openssh_sftp() {
    passes("sftp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_openssh_sftp_cmds() {
    passes("sftp-cmds").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_openssh_sftp_badcmds() {
    passes("sftp-badcmds").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_openssh_sftp_batch() {
    passes("sftp-batch").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_openssh_sftp_glob() {
    passes("sftp-glob").await;
}
