//! The clients: OpenSSH's and paramiko's as processes that are told one transfer at a time, and our own.

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use async_trait::async_trait;
use russh::{
    Signer,
    keys::{HashAlg, PrivateKey, agent::AgentIdentity, signature::Signer as _, ssh_encoding::Encode as _},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
};
use towpath_transfer::RemotePath;
use towpath_transport::{
    client::{SftpLogin, SftpStore},
    files::Disk,
    store::{FileSource, NoProgress, RemoteStore as _},
};

use crate::{program::Server, support::RealClock};

/// Where `cargo xtask test` leaves the Python that has paramiko.
const PYTHON_VARIABLE: &str = "TOWPATH_INTEROP_PYTHON";

/// A client that can log in as often as it is asked to.
#[async_trait]
pub(super) trait Client: Sync {
    fn name(&self) -> String;

    async fn log_in(&self) -> Result<Box<dyn Session>, String>;
}

/// One connection, for any number of transfers one after the other.
#[async_trait]
pub(super) trait Session: Send {
    /// Returns when the whole file is at the far side under its name.
    async fn put(&mut self, local: &Path, remote: &str) -> Result<(), String>;

    /// Returns when the whole file is here.
    async fn get(&mut self, remote: &str, local: &Path) -> Result<(), String>;

    async fn log_out(self: Box<Self>) -> Result<(), String>;
}

/// OpenSSH's `sftp`.
pub(super) struct OpenSsh<'s> {
    pub(super) server: &'s Server,
    pub(super) options: &'static [&'static str],
}

#[async_trait]
impl Client for OpenSsh<'_> {
    fn name(&self) -> String {
        ["sftp"].iter().chain(self.options).copied().collect::<Vec<_>>().join(" ")
    }

    async fn log_in(&self) -> Result<Box<dyn Session>, String> {
        let Server { address, key, folder, .. } = self.server;
        let mut command = Command::new("sftp");
        command
            .args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "LogLevel=ERROR"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", folder.path().join("known_hosts").display()))
            .args(["-o", "StrictHostKeyChecking=yes", "-P", &address.port().to_string(), "-i"])
            .arg(&key.path)
            .args(self.options)
            .args(["-b", "-", &format!("tester@{}", address.ip())]);
        // A batch says nothing at the end of a command, but answers this one after it.
        Told::start(command, "lpwd\n", "Local working directory: ").await
    }
}

/// paramiko, with whatever it does by default.
pub(super) struct Paramiko<'s> {
    pub(super) server: &'s Server,
}

#[async_trait]
impl Client for Paramiko<'_> {
    fn name(&self) -> String {
        "paramiko".to_owned()
    }

    async fn log_in(&self) -> Result<Box<dyn Session>, String> {
        let Server { address, key, folder, .. } = self.server;
        let mut command = Command::new(python(std::env::var_os(PYTHON_VARIABLE))?);
        command
            .args(["-c", include_str!("paramiko_session.py")])
            .args([&address.ip().to_string(), &address.port().to_string(), "tester"])
            .args([&key.path, &folder.path().join("known_hosts")]);
        Told::start(command, "", "done").await
    }
}

pub(super) fn python(variable: Option<OsString>) -> Result<PathBuf, String> {
    variable.map(PathBuf::from).ok_or_else(|| format!("{PYTHON_VARIABLE} names no Python with paramiko: run cargo xtask test"))
}

/// A client that reads commands and says when each is done.
struct Told {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Sent after each command.
    then: &'static str,
    /// How the answer begins.
    done: &'static str,
}

impl Told {
    /// Returns when the program has logged in and answers.
    async fn start(mut command: Command, then: &'static str, done: &'static str) -> Result<Box<dyn Session>, String> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = started.map_err(|error| format!("starting {:?} failed: {error}", command.as_std().get_program()))?;
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Self { child, commands, answers, then, done };
        told.tell("").await?;
        Ok(Box::new(told))
    }

    async fn tell(&mut self, command: &str) -> Result<(), String> {
        let commands = format!("{command}\n{}", self.then);
        self.commands.write_all(commands.as_bytes()).await.map_err(|error| format!("it takes no command: {error}"))?;
        loop {
            match self.answers.next_line().await {
                Ok(Some(line)) if line.starts_with(self.done) => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err("the program ended".to_owned()),
                Err(error) => return Err(format!("its output cannot be read: {error}")),
            }
        }
    }
}

#[async_trait]
impl Session for Told {
    async fn put(&mut self, local: &Path, remote: &str) -> Result<(), String> {
        self.tell(&format!("put {} {remote}", local.display())).await
    }

    async fn get(&mut self, remote: &str, local: &Path) -> Result<(), String> {
        self.tell(&format!("get {remote} {}", local.display())).await
    }

    async fn log_out(self: Box<Self>) -> Result<(), String> {
        let Self { mut child, commands, .. } = *self;
        drop(commands);
        match child.wait().await {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("the program ended with {other:?}")),
        }
    }
}

/// Our own client.
pub(super) struct Ours<'s> {
    pub(super) server: &'s Server,
}

#[async_trait]
impl Client for Ours<'_> {
    fn name(&self) -> String {
        "our client".to_owned()
    }

    async fn log_in(&self) -> Result<Box<dyn Session>, String> {
        let Server { address, key, host_key, .. } = self.server;
        let login = SftpLogin {
            user: "tester".to_owned(),
            public_key: key.private.public_key().clone(),
            signer: KeySigner(Arc::clone(&key.private)),
            host_keys: vec![host_key.clone()].into(),
        };
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let store = SftpStore::connect(stream, login, Arc::new(RealClock::new())).await.map_err(|error| error.to_string())?;
        Ok(Box::new(OurSession(store)))
    }
}

struct KeySigner(Arc<PrivateKey>);

impl Signer for KeySigner {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, russh::AgentAuthError> {
        let mut blob = Vec::new();
        self.0.try_sign(&to_sign).unwrap().encode(&mut blob).unwrap();
        blob.encode(&mut to_sign).unwrap();
        Ok(to_sign)
    }
}

struct OurSession(SftpStore);

#[async_trait]
impl Session for OurSession {
    async fn put(&mut self, local: &Path, remote: &str) -> Result<(), String> {
        let (part, name): (RemotePath, RemotePath) = (format!("{remote}.part").parse().unwrap(), remote.parse().unwrap());
        let source = FileSource::new(Arc::new(Disk), local);
        self.0.put_new(&part, source, &NoProgress).await.map_err(|error| format!("{error:?}"))?;
        self.0.publish(&part, &name).await.map_err(|error| format!("{error:?}"))
    }

    async fn get(&mut self, remote: &str, local: &Path) -> Result<(), String> {
        let mut file = std::fs::File::create(local).unwrap();
        let mut reader = self.0.open(&remote.parse().unwrap(), 0).await.map_err(|error| format!("{error:?}"))?;
        while let Some(bytes) = reader.next().await.map_err(|error| format!("{error:?}"))? {
            file.write_all(&bytes).unwrap();
        }
        Ok(())
    }

    async fn log_out(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}
