//! The relay's certificate: from files, or one that it signs itself and that enrolment codes pin.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use towpath_transfer::{Clock, Code, Entropy, Failure, TransferId, digest::Sha256Digest, failure::Result};
use towpath_transport::dial::tls::{good_until, spki_pin};
use url::Url;

use super::ALPN_SSH;
use crate::config::TlsSection;

/// The relay's own certificate and key, in its state folder.
const OWN_FILE: &str = "self-signed.pem";
/// Pins are for years: so is the certificate.
const YEARS: i16 = 20;

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// For the door.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of its SubjectPublicKeyInfo, where enrolment codes carry it.
    pub pin: Option<Sha256Digest>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: Sha256Digest,
    /// SHA-256 of its file.
    pub bytes: Sha256Digest,
    /// Until when it says that it is good. Ends that pin it do not mind.
    pub good_until: Timestamp,
}

impl Certificate {
    /// Loads the certificate that is configured, or the relay's own in the folder `dir`, which is made where it is
    /// missing. Blocking.
    ///
    /// # Errors
    /// [`Code::KeyMissing`] and [`Code::KeyInvalid`] where a configured file cannot be used; [`Code::FileFailed`].
    pub fn load(section: &TlsSection, dir: &Path, public_url: &str, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Self> {
        if section.certificate.is_none() || section.key.is_none() {
            make_own(dir, public_url, clock, entropy)?;
        }
        let (certificate, key, pinned) = files(section, dir);
        Self::read(&certificate, &key, pinned)
    }

    /// Reads a certificate with its chain, and its key. Blocking.
    ///
    /// # Errors
    /// [`Code::KeyMissing`]; [`Code::KeyInvalid`] where they cannot be used together; [`Code::FileFailed`].
    pub fn read(certificate: &Path, key: &Path, pinned: bool) -> Result<Self> {
        let unusable = |path: &Path| Failure::park(Code::KeyInvalid, format!("{} cannot be used for TLS", path.display()));
        let pem = read(certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| unusable(certificate).caused_by(e))?;
        let first = chain.first().ok_or_else(|| unusable(certificate).caused_by("it holds no certificate"))?;
        let unreadable = || unusable(certificate).caused_by("its certificate cannot be read");
        let (spki, good_until) = spki_pin(first).zip(good_until(first)).ok_or_else(unreadable)?;
        let key_der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| unusable(key).caused_by(e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
            .map_err(|e| unusable(certificate).caused_by(e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ALPN_SSH.to_vec()];
        Ok(Self { config: Arc::new(config), pin: pinned.then_some(spki), spki, bytes: Sha256Digest::of(&pem), good_until })
    }
}

/// Where the certificate and its key lie, and whether enrolment codes carry its pin: as configured, or the relay's own in `dir`.
pub(crate) fn files(section: &TlsSection, dir: &Path) -> (PathBuf, PathBuf, bool) {
    match (&section.certificate, &section.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), section.pin),
        _ => (dir.join(OWN_FILE), dir.join(OWN_FILE), true),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::park(Code::KeyMissing, format!("there is no file {}", path.display())),
        _ => Failure::park(Code::FileFailed, format!("read {}", path.display())).caused_by(e),
    })
}

fn make_own(dir: &Path, public_url: &str, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<()> {
    let path = dir.join(OWN_FILE);
    let failed = |e: io::Error| Failure::park(Code::FileFailed, format!("write {}", path.display())).caused_by(e);
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(failed)?;
    let (certificate, key) = self_signed(public_url, clock)?;
    let pem = certificate + &key;
    // Service and commands may come here at once: whoever links its file first has made the certificate.
    let temp = dir.join(format!(".{OWN_FILE}.{}", TransferId::new(clock, entropy)));
    let written = write_private(&temp, pem.as_bytes()).and_then(|()| match fs::hard_link(&temp, &path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&temp);
    written.and(removed).map_err(failed)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new certificate for the host of the public URL and its key, both as PEM.
pub(crate) fn self_signed(public_url: &str, clock: &dyn Clock) -> Result<(String, String)> {
    let failed = |e: rcgen::Error| Failure::park(Code::Internal, "make the relay's certificate").caused_by(e);
    let url = Url::parse(public_url).map_err(|e| Failure::park(Code::ConfigInvalid, "read the public URL").caused_by(e))?;
    let host = url.host_str().unwrap_or("localhost").trim_start_matches('[').trim_end_matches(']').to_owned();
    let mut params = CertificateParams::new(vec![host.clone()]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, host);
    let today = clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        date_time_ymd(i32::from(date.year()), u8::try_from(date.month()).unwrap_or(1), u8::try_from(date.day()).unwrap_or(1))
    };
    // Hosts whose clock is a day behind shall see a certificate that has begun.
    params.not_before = day(today.saturating_sub(jiff::Span::new().days(7)));
    params.not_after = day(today.saturating_add(jiff::Span::new().years(YEARS)));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::clock::{ManualClock, SeededEntropy};

    use super::*;

    fn load(dir: &Path, section: &TlsSection) -> Result<Certificate> {
        let clock = ManualClock::new("2026-01-31T00:00:00Z".parse().unwrap());
        Certificate::load(section, dir, "https://relay.example:8443", &clock, &SeededEntropy::new(1))
    }

    #[test]
    fn the_own_certificate_is_made_once_and_its_pin_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(&dir.path().join("tls"), &TlsSection::default()).unwrap();
        let second = load(&dir.path().join("tls"), &TlsSection::default()).unwrap();
        assert!(first.pin.is_some());
        assert_eq!(first.pin, second.pin);
        assert_eq!(fs::read_dir(dir.path().join("tls")).unwrap().count(), 1);
    }

    #[test]
    fn configured_files_are_used_and_pinned_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let own = load(dir.path(), &TlsSection::default()).unwrap();
        let file = dir.path().join(OWN_FILE);
        let section = |pin| TlsSection { certificate: Some(file.clone()), key: Some(file.clone()), pin };
        assert_eq!(load(dir.path(), &section(false)).unwrap().pin, None);
        assert_eq!(load(dir.path(), &section(true)).unwrap().pin, own.pin);
        let missing = TlsSection { certificate: Some(dir.path().join("x")), ..section(false) };
        assert_eq!(load(dir.path(), &missing).unwrap_err().code(), Code::KeyMissing);
        fs::write(dir.path().join("y"), "nothing").unwrap();
        let empty = TlsSection { certificate: Some(dir.path().join("y")), ..section(false) };
        assert_eq!(load(dir.path(), &empty).unwrap_err().code(), Code::KeyInvalid);
    }
}
