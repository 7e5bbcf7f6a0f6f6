//! What the tests of this room share: keys that are made once, and `ssh-keygen` as a judge.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::LazyLock,
};

use towpath_transfer::clock::SeededEntropy;

use crate::{identity::Identity, kind::KeyKind};

static RSA: LazyLock<Identity> = LazyLock::new(|| Identity::generate(KeyKind::Rsa2048, &SeededEntropy::new(2048)).unwrap());
static ED25519: LazyLock<Identity> = LazyLock::new(|| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(255)).unwrap());
static OTHER: LazyLock<Identity> = LazyLock::new(|| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(256)).unwrap());

pub(crate) fn rsa() -> &'static Identity {
    &RSA
}

pub(crate) fn ed25519() -> &'static Identity {
    &ED25519
}

/// A key that nobody expects.
pub(crate) fn other() -> &'static Identity {
    &OTHER
}

/// Runs `ssh-keygen`, which must be there and must succeed, and answers what it printed.
pub(crate) fn ssh_keygen(arguments: &[&str], input: &[u8]) -> String {
    try_ssh_keygen(arguments, input).unwrap_or_else(|said| panic!("ssh-keygen {arguments:?} failed: {said}"))
}

/// Runs `ssh-keygen`, which must be there; `Err` with what it said when it does not succeed.
pub(crate) fn try_ssh_keygen(arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let mut child = Command::new("ssh-keygen")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh-keygen is needed for this test (Debian: openssh-client)");
    // It may end without reading, where it refuses before it looks at the message.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
