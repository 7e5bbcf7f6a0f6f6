//! Whom TLS trusts: one or more pinned keys, or the system's trust store.

use std::{error::Error, fmt, io, sync::Arc};

use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use towpath_transfer::{Code, Failure, digest::Sha256Digest, failure::Result};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::block::causes;
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
        Trust::Public => {
            let verifier = PubliclyTrusted(Verifier::new(provider).map_err(failed)?);
            return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth());
        }
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

/// Until when a certificate in DER form says that it is good. `None` where it cannot be read.
#[must_use]
pub fn good_until(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    // The last second of the year 9999, which means that there is no end, is later than any clock here.
    Some(Timestamp::from_second(certificate.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX))
}

/// Whether an error, or one of its causes, says that the server's certificate was not accepted.
#[must_use]
pub fn is_certificate_error(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause.is::<NotAccepted>()
            || matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
    })
}

/// What one of the verifiers here says of a certificate, in the place of what rustls makes of it: that shows the words of others as
/// Rust writes values.
pub(super) fn in_words(error: io::Error) -> io::Error {
    let why = causes(&error).find_map(|cause| match cause.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(why))) => Some(Arc::clone(why)),
        _ => None,
    });
    match why {
        Some(why) => io::Error::new(error.kind(), NotAccepted(why)),
        None => error,
    }
}

/// A certificate that was not accepted, and why.
#[derive(Debug)]
struct NotAccepted(Arc<dyn Error + Send + Sync>);

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NotAccepted {}

/// The longest name of a certificate that is repeated, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Whose certificate a server has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Whom it names.
    pub subject: String,
    /// Who has signed it; the same where it is self-signed.
    pub issuer: String,
}

impl Shown {
    /// `None` where the certificate, in DER form, cannot be read.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        // Whoever is in between chooses these names.
        let name = |name: &X509Name<'_>| -> String {
            name.to_string().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
        };
        Some(Self { subject: name(certificate.subject()), issuer: name(certificate.issuer()) })
    }

    /// Whether it was signed by its own key, as a relay's own certificate is, and none of a proxy that opens TLS.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_self_signed() {
            write!(f, "{}, signed by itself", self.subject)
        } else {
            write!(f, "{}, issued by {}", self.subject, self.issuer)
        }
    }
}

/// Whose certificate was not accepted, where the error says it.
#[must_use]
pub fn shown(error: &(dyn Error + 'static)) -> Option<Shown> {
    let of = |why: &(dyn Error + 'static)| {
        let pinned = why.downcast_ref::<PinMismatch>().and_then(|mismatch| mismatch.certificate.clone());
        pinned.or_else(|| why.downcast_ref::<NotTrusted>().map(|not| not.certificate.clone()))
    };
    causes(error).find_map(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(NotAccepted(why)), _) => of(&**why),
        (_, Some(rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(why))))) => of(&**why),
        _ => None,
    })
}

fn other(why: impl Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(why))))
}

/// The system's own trust store, which does not say whose certificate it refuses.
#[derive(Debug)]
struct PubliclyTrusted(Verifier);

impl ServerCertVerifier for PubliclyTrusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(|error| {
            match (&error, Shown::of(end_entity)) {
                (rustls::Error::InvalidCertificate(why), Some(certificate)) => {
                    // Windows has words of its own, which rustls would show as Rust writes values.
                    let why = if let CertificateError::Other(rustls::OtherError(own)) = why {
                        own.to_string()
                    } else {
                        why.to_string()
                    };
                    other(NotTrusted { certificate, why })
                }
                _ => error,
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
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
        Err(other(PinMismatch { shown: pin, pinned: pins.join(" or "), certificate: Shown::of(end_entity) }))
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
#[error(
    "the server's certificate{} has the key {shown}, but pinned is {pinned}",
    certificate.as_ref().map(|shown| format!(" ({shown})")).unwrap_or_default()
)]
struct PinMismatch {
    shown: Sha256Digest,
    pinned: String,
    certificate: Option<Shown>,
}

/// The system's trust store does not accept the certificate.
#[derive(Debug, thiserror::Error)]
#[error("this system does not trust the server's certificate ({certificate}): {why}")]
struct NotTrusted {
    certificate: Shown,
    why: String,
}
