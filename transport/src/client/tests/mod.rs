//! The client against OpenSSH, against our own server, and against servers that misbehave.

#[cfg(unix)]
mod lines;
mod misbehaving;
#[cfg(unix)]
mod openssh;
#[cfg(unix)]
mod own_server;

use std::{sync::Arc, time::Duration};

use russh::{
    Signer,
    keys::{
        HashAlg, PrivateKey, PublicKey, PublicKeyBase64,
        agent::AgentIdentity,
        signature::Signer as _,
        ssh_encoding::Encode,
        ssh_key::private::{Ed25519Keypair, KeypairData},
    },
};
use towpath_transfer::{Clock, clock::Sleep, public_key::PublicKeyLine};

use super::SftpLogin;

/// Signs with a key in memory.
#[derive(Clone)]
pub(super) struct TestSigner(PrivateKey);

impl Signer for TestSigner {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, russh::AgentAuthError> {
        let signature = self.0.try_sign(&to_sign).unwrap();
        let mut blob = Vec::new();
        signature.encode(&mut blob).unwrap();
        blob.encode(&mut to_sign).unwrap();
        Ok(to_sign)
    }
}

/// The real clock, for tests that talk to another process.
#[derive(Debug)]
struct RealClock(std::time::Instant);

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "another process has no manual clock")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[expect(clippy::disallowed_methods, reason = "another process has no manual clock")]
pub(super) fn real_clock() -> Arc<dyn Clock> {
    Arc::new(RealClock(std::time::Instant::now()))
}

pub(super) fn ed25519(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

pub(super) fn line(key: &PublicKey) -> PublicKeyLine {
    PublicKeyLine::from_blob(&key.public_key_bytes()).unwrap()
}

pub(super) fn login(user: &str, key: PrivateKey, host_keys: Vec<PublicKeyLine>) -> SftpLogin<TestSigner> {
    SftpLogin {
        user: user.to_owned(),
        public_key: key.public_key().clone(),
        signer: TestSigner(key),
        host_keys: host_keys.into(),
    }
}
