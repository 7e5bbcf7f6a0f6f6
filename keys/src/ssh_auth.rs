//! SSH user authentication with an [`Identity`]: the signature is made by `ring`, never by the SSH library.

use russh::{
    Signer,
    keys::{Algorithm, HashAlg, agent::AgentIdentity},
};
use thiserror::Error;
use towpath_transfer::{Failure, failure::Result};

use crate::{identity::Identity, public::SignatureAlgorithm, wire};

/// Signs for `russh::client::Handle::authenticate_publickey_with`, which takes [`SshSigner::public_key`] and
/// [`SshSigner::hash_alg`] beside it.
#[derive(Debug, Clone)]
pub struct SshSigner {
    identity: Identity,
    public: russh::keys::PublicKey,
}

/// Why an authentication request was not signed.
#[derive(Debug, Error)]
pub enum SshSignError {
    /// The session is gone.
    #[error("the SSH session ended before the signature could be sent")]
    Gone(#[from] russh::SendError),
    /// The session asked for a signature by another key, or by a certificate.
    #[error("the SSH session asked for a signature by another key")]
    OtherKey,
    /// The session asked for SHA-1, or for an algorithm of another kind of key.
    #[error(
        "the SSH session asked for a signature algorithm that is not allowed; rsa-sha2-512, rsa-sha2-256 and ssh-ed25519 are"
    )]
    Algorithm,
    /// The signature could not be made.
    #[error("the signature for SSH could not be made")]
    Sign(#[source] Failure),
}

impl Identity {
    /// A signer for SSH authentication with this key.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::Internal`] when the SSH library does not accept the public key.
    pub fn ssh_signer(&self) -> Result<SshSigner> {
        Ok(SshSigner { identity: self.clone(), public: self.public_key().to_ssh()? })
    }
}

impl SshSigner {
    /// The public key to offer.
    #[must_use]
    pub fn public_key(&self) -> russh::keys::PublicKey {
        self.public.clone()
    }

    /// The hash to ask for: SHA-512 for RSA (RFC 8332), none for Ed25519, which has its own.
    #[must_use]
    pub fn hash_alg(&self) -> Option<HashAlg> {
        self.identity.public_key().is_rsa().then_some(HashAlg::Sha512)
    }

    fn append_signature(&self, key: &AgentIdentity, hash: Option<HashAlg>, request: &mut Vec<u8>) -> Result<(), SshSignError> {
        let AgentIdentity::PublicKey { key, .. } = key else { return Err(SshSignError::OtherKey) };
        if key.key_data() != self.public.key_data() {
            return Err(SshSignError::OtherKey);
        }
        let algorithm = match (key.algorithm(), hash) {
            (Algorithm::Rsa { .. }, Some(HashAlg::Sha512)) => SignatureAlgorithm::RsaSha512,
            (Algorithm::Rsa { .. }, Some(HashAlg::Sha256)) => SignatureAlgorithm::RsaSha256,
            (Algorithm::Ed25519, _) => SignatureAlgorithm::Ed25519,
            _ => return Err(SshSignError::Algorithm),
        };
        let raw = self.identity.sign_raw(algorithm, request).map_err(SshSignError::Sign)?;
        let mut signature = Vec::new();
        wire::put_string(&mut signature, algorithm.as_str().as_bytes());
        wire::put_string(&mut signature, &raw);
        wire::put_string(request, &signature);
        Ok(())
    }
}

impl Signer for SshSigner {
    type Error = SshSignError;

    /// Answers the request with the signature appended to it, as the session expects (RFC 4252 section 7).
    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash_alg: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SshSignError> {
        self.append_signature(key, hash_alg, &mut to_sign)?;
        Ok(to_sign)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use russh::{client, keys::PublicKeyOrCertificate, server};
    use tokio::time::timeout;
    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::{
        host_keys::HostKeys,
        public::PublicKey,
        testing::{ed25519, other, rsa},
    };

    struct Client;

    impl client::Handler for Client {
        type Error = russh::Error;

        async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
            Ok(true)
        }
    }

    /// Lets in whoever proves to hold this key.
    struct Server(PublicKey);

    impl server::Handler for Server {
        type Error = russh::Error;

        async fn auth_publickey(
            &mut self,
            _user: &str,
            key: server::VerifiedPublicKey<'_>,
        ) -> Result<server::Auth, russh::Error> {
            let known = PublicKey::from_ssh(key.public_key).is_ok_and(|key| key == self.0);
            Ok(if known { server::Auth::Accept } else { server::Auth::reject() })
        }
    }

    async fn connect(expected: &Identity) -> client::Handle<Client> {
        let folder = tempfile::tempdir().unwrap();
        let keys = HostKeys::load_or_generate(folder.path(), &SeededEntropy::new(5)).unwrap().offered(true);
        let config = server::Config { keys, auth_rejection_time: Duration::ZERO, ..Default::default() };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let handler = Server(expected.public_key().clone());
        tokio::spawn(async move { server::run_stream(Arc::new(config), far, handler).await.unwrap().await });
        client::connect_stream(Arc::new(client::Config::default()), near, Client).await.unwrap()
    }

    async fn login(expected: &Identity, identity: &Identity, hash: Option<HashAlg>) -> Result<bool, SshSignError> {
        let mut session = connect(expected).await;
        let mut signer = identity.ssh_signer().unwrap();
        let public = signer.public_key();
        let attempt = session.authenticate_publickey_with("acme.erp1", public, hash, &mut signer);
        let result = timeout(Duration::from_secs(60), attempt).await.expect("the session answers");
        result.map(|result| result.success())
    }

    #[tokio::test]
    async fn a_server_accepts_the_signature() {
        for identity in [rsa(), ed25519()] {
            let hash = identity.ssh_signer().unwrap().hash_alg();
            assert!(login(identity, identity, hash).await.unwrap());
            assert!(!login(other(), identity, hash).await.unwrap());
        }
        assert!(login(rsa(), rsa(), Some(HashAlg::Sha256)).await.unwrap());
    }

    #[tokio::test]
    async fn sha1_is_never_signed() {
        assert!(matches!(login(rsa(), rsa(), None).await, Err(SshSignError::Algorithm)));
    }

    #[tokio::test]
    async fn another_key_is_never_signed_for() {
        let mut signer = rsa().ssh_signer().unwrap();
        let key = other().public_key().to_ssh().unwrap();
        assert!(matches!(signer.auth_sign(&key.into(), None, vec![1]).await, Err(SshSignError::OtherKey)));
    }
}
