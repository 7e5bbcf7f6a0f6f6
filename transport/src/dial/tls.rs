//! Whom TLS trusts: one or more pinned keys, or the system's trust store.

use std::{error::Error, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::BuilderVerifierExt;
use towpath_transfer::{Code, Failure, digest::Sha256Digest, failure::Result};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pins::Pins;

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A server whose certificate has one of these keys: SHA-256 over its SubjectPublicKeyInfo. Names and dates in the certificate
    /// do not matter then, because the pin says more than they do; pins are for years.
    Pinned(Vec<Sha256Digest>),
    /// The same, with keys that may become others while the relay changes its certificate.
    Following(Pins<Sha256Digest>),
    /// A server whose certificate the system's own trust store accepts for its name.
    Public,
}

/// TLS 1.3 and 1.2 with `ring`, without client certificate and without ALPN.
///
/// # Errors
/// [`Code::RelayCertificate`] where the system's trust store cannot be used.
pub fn client_config(trust: &Trust) -> Result<ClientConfig> {
    let failed = |error: rustls::Error| {
        Failure::park(Code::RelayCertificate, "preparing TLS with the system's trust store").caused_by(error)
    };
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(failed)?;
    let pins = match trust {
        Trust::Pinned(pins) => Pins::new(pins.clone()),
        Trust::Following(pins) => pins.clone(),
        Trust::Public => return Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth()),
    };
    let verifier = PinnedKey { pins, provider };
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    // A resumed session shows no certificate, and so would outlive the pin it was made under.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The pin of a certificate in DER form: SHA-256 over its SubjectPublicKeyInfo. `None` where it cannot be read.
#[must_use]
pub fn spki_pin(certificate: &[u8]) -> Option<Sha256Digest> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256Digest::of(certificate.public_key().raw))
}

/// Whether an error, or one of its causes, says that the server's certificate was not accepted.
#[must_use]
pub fn is_certificate_error(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) {
            return true;
        }
        // An `io::Error` gives its cause's cause as `source`, and so hides the one that matters.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

#[derive(Debug)]
struct PinnedKey {
    pins: Pins<Sha256Digest>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin = spki_pin(end_entity).ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let pins = self.pins.get();
        if pins.contains(&pin) {
            return Ok(ServerCertVerified::assertion());
        }
        let pins: Vec<String> = pins.iter().map(Sha256Digest::to_string).collect();
        let mismatch = PinMismatch { shown: pin, pinned: pins.join(" or ") };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(mismatch)))))
    }

    /// Without this anybody could show the pinned certificate, which is no secret.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The server's key is none of the pinned ones.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate has the key {shown}, but pinned is {pinned}")]
struct PinMismatch {
    shown: Sha256Digest,
    pinned: String,
}
