//! What stands in the way of a connection that could not be made, read from its error.

use std::{error::Error, io};

use towpath_transfer::{Disposition, Failure};

use super::{
    NoAddress,
    http_connect::OffersOnly,
    proxy::LoginRefused,
    tls::{self, Shown},
};
use crate::store::{StoreError, StoreErrorKind};

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Block {
    /// The name has no address.
    Name,
    /// The connection is refused: nothing listens there, or a firewall says no.
    Refused,
    /// There is no answer at all: a firewall drops it, or the host is off.
    Dropped,
    /// There is no route to the host.
    NoRoute,
    /// A connection was made, and cut or left without an answer as soon as something was said.
    Cut,
    /// Something else than the wanted server answers.
    Other,
    /// A certificate is shown that is not believed; whose, where it could be read.
    Certificate(Option<Shown>),
    /// The proxy wants authentication by schemes that Towpath does not speak, such as NTLM.
    ProxyScheme(Vec<String>),
    /// The proxy wants a user and a password, or does not accept those that it was given.
    ProxyLogin,
    /// The proxy refuses for another reason, which the error says.
    Proxy,
    /// The server was reached and says no by itself: nothing is in the way.
    Nothing,
    /// None of these.
    Unknown,
}

impl Block {
    /// What the error, or one of its causes, tells.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut said = None;
        for cause in causes(error) {
            if let Some(OffersOnly(schemes)) = cause.downcast_ref() {
                return Self::ProxyScheme(schemes.clone());
            }
            if cause.is::<LoginRefused>() {
                return Self::ProxyLogin;
            }
            if cause.is::<NoAddress>() {
                return Self::Name;
            }
            if let Some(store) = cause.downcast_ref::<StoreError>() {
                said = Some(store);
            }
        }
        if tls::is_certificate_error(error) {
            return Self::Certificate(tls::shown(error));
        }
        match said.map(StoreError::kind) {
            Some(StoreErrorKind::ProxyRefused) => Self::Proxy,
            Some(StoreErrorKind::Certificate) => Self::Certificate(tls::shown(error)),
            Some(StoreErrorKind::HostKeyUnknown | StoreErrorKind::AuthenticationRefused | StoreErrorKind::Unsupported) => {
                Self::Nothing
            }
            Some(StoreErrorKind::Protocol) => Self::Other,
            Some(StoreErrorKind::TimedOut) if is_after_connecting(error) => Self::Cut,
            Some(StoreErrorKind::TimedOut) => Self::Dropped,
            kind => Self::of_io(error).unwrap_or(match kind {
                Some(StoreErrorKind::ConnectionLost) => Self::Cut,
                _ => Self::Unknown,
            }),
        }
    }

    fn of_io(error: &(dyn Error + 'static)) -> Option<Self> {
        causes(error).find_map(|cause| {
            let error = cause.downcast_ref::<io::Error>()?;
            match error.kind() {
                io::ErrorKind::ConnectionRefused => Some(Self::Refused),
                io::ErrorKind::TimedOut => Some(Self::Dropped),
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Self::NoRoute),
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
                    Some(Self::Cut)
                }
                // A message of TLS that is none.
                io::ErrorKind::InvalidData => Some(Self::Other),
                _ => None,
            }
        })
    }
}

/// What to do where a name has no address, for a program whose configuration can name a proxy.
pub const NO_NAME: &str = "see that the name is right, and that this host's name server knows it (nslookup); where only a proxy leads out, \
                           name that in [network] proxy";

/// A failure to reach the relay, with what to do about it where its name has no address: whoever enrols has nothing yet that would look
/// closer. Any other failure is as it was.
#[must_use]
pub fn with_remedy(failure: Failure) -> Failure {
    if Block::of(&failure) != Block::Name {
        return failure;
    }
    let (report, code) = (failure.report(), failure.code());
    let told = report.strip_suffix(&format!(" [{code}]")).unwrap_or(&report);
    let message = format!("{told}; {NO_NAME}");
    let failed = match failure.disposition() {
        Disposition::Retry => Failure::retry(code, message),
        Disposition::Park => Failure::park(code, message),
    };
    failed.caused_by(failure)
}

/// Whether it was the far side that did not answer, over a connection that stood.
fn is_after_connecting(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let said = cause.to_string();
        said.starts_with("agreeing on TLS") || said.starts_with("logging in over SSH")
    })
}

/// An error and what is below it. An `io::Error` gives its cause's cause as `source`, and so hides the one that matters.
pub(super) fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error: &'e (dyn Error + 'static) = *error;
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Code;

    use super::*;

    fn of(kind: StoreErrorKind, message: &str, io: Option<io::ErrorKind>) -> Block {
        let error = StoreError::new(kind, message);
        Block::of(&match io {
            Some(io) => error.caused_by(io::Error::from(io)),
            None => error,
        })
    }

    #[test]
    fn a_name_without_an_address_is_told_with_what_to_do() {
        let of = |cause: io::Error| {
            let error = StoreError::new(StoreErrorKind::Unreachable, "connecting to relay.example:443").caused_by(cause);
            with_remedy(Failure::retry(Code::RelayUnreachable, "enrolling").caused_by(error))
        };
        let told = of(io::Error::other(NoAddress(io::Error::other("Name or service not known"))));
        let expected =
            format!("enrolling: connecting to relay.example:443: Name or service not known; {NO_NAME} [relay-unreachable]");
        assert_eq!((told.report(), Block::of(&told)), (expected, Block::Name));
        assert_eq!(told.disposition(), Disposition::Retry);
        assert!(!of(io::ErrorKind::ConnectionRefused.into()).report().contains("nslookup"));
    }

    #[test]
    fn each_error_names_what_is_in_the_way() {
        use StoreErrorKind as Kind;
        use io::ErrorKind as Io;
        assert_eq!(of(Kind::Unreachable, "connecting to x", Some(Io::ConnectionRefused)), Block::Refused);
        assert_eq!(of(Kind::Unreachable, "connecting to x", Some(Io::HostUnreachable)), Block::NoRoute);
        assert_eq!(of(Kind::Unreachable, "agreeing on TLS with x", Some(Io::ConnectionReset)), Block::Cut);
        assert_eq!(of(Kind::Unreachable, "agreeing on TLS with x", Some(Io::InvalidData)), Block::Other);
        assert_eq!(of(Kind::Unreachable, "the proxy does not reach x", None), Block::Unknown);
        assert_eq!(of(Kind::TimedOut, "connecting to x: no answer", None), Block::Dropped);
        assert_eq!(of(Kind::TimedOut, "logging in over SSH: no answer", None), Block::Cut);
        assert_eq!(of(Kind::ConnectionLost, "agreeing on keys", None), Block::Cut);
        assert_eq!(of(Kind::Protocol, "agreeing on keys", None), Block::Other);
        assert_eq!(of(Kind::ProxyRefused, "403", None), Block::Proxy);
        assert_eq!(of(Kind::AuthenticationRefused, "no", None), Block::Nothing);
        assert_eq!(of(Kind::Certificate, "agreeing on TLS", None), Block::Certificate(None));
        let lookup = io::Error::other(NoAddress(io::Error::other("Der angegebene Host ist unbekannt. (os error 11001)")));
        assert_eq!(Block::of(&StoreError::new(Kind::Unreachable, "connecting").caused_by(lookup)), Block::Name);
        let login = StoreError::new(Kind::ProxyRefused, "407").caused_by(LoginRefused("407 No".to_owned()));
        assert_eq!(Block::of(&login), Block::ProxyLogin);
        let only = StoreError::new(Kind::ProxyRefused, "407").caused_by(OffersOnly(vec!["NTLM".to_owned()]));
        assert_eq!(Block::of(&only), Block::ProxyScheme(vec!["NTLM".to_owned()]));
        assert_eq!(Block::of(&io::Error::other("anything")), Block::Unknown);
    }
}
