//! What can go wrong with a far folder, by kind, and how a kind becomes a [`Failure`].

use std::{error::Error, fmt, io};

use towpath_transfer::{Code, Failure};

use crate::files::io_failure;

/// The kinds of error that a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The name, or its folder, is not there, or is somebody else's.
    NotFound,
    /// The far side does not allow it.
    Denied,
    /// The name is taken.
    Exists,
    /// No space at the far side.
    Full,
    /// The far side said no, without a word why.
    Refused,
    /// The server does not offer what is needed.
    Unsupported,
    /// No connection could be made.
    Unreachable,
    /// The connection ended with the operation under way.
    ConnectionLost,
    /// No answer in the time allowed.
    TimedOut,
    /// The server's host key is not a pinned one.
    HostKeyUnknown,
    /// The server accepts neither the user nor the key.
    AuthenticationRefused,
    /// TLS around SSH: the certificate is neither pinned nor trusted.
    Certificate,
    /// The proxy on the way does not let the connection through.
    ProxyRefused,
    /// The server does not follow the protocol.
    Protocol,
    /// A limit of ours was exceeded.
    Limit,
    /// The file of our own that was to be sent cannot be read.
    Source,
    /// A fault in Towpath itself.
    Internal,
}

impl StoreErrorKind {
    /// Whether the same operation may succeed later, without anybody's help.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Full
                | Self::Refused
                | Self::Unreachable
                | Self::ConnectionLost
                | Self::TimedOut
                | Self::ProxyRefused
                | Self::Source
                | Self::Internal
        )
    }

    /// Whether the connection is of no further use.
    #[must_use]
    pub const fn ends_connection(self) -> bool {
        matches!(self, Self::Unreachable | Self::ConnectionLost | Self::TimedOut | Self::Protocol | Self::Internal)
    }
}

/// Whose folder it is: this decides the operator error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// The relay, seen by an agent.
    Relay,
    /// A tenant's app server, seen by the relay.
    AppServer,
}

/// An operation on a far folder that failed.
///
/// [`fmt::Display`] says what was tried and why it failed; a cause below stays in [`Error::source`].
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of this kind; `message` says what was tried and why it failed.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// What was tried and why it failed, with every cause below that says something new.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !report.contains(&text) {
                report = format!("{report}: {text}");
            }
            cause = error.source();
        }
        report
    }

    /// The error as a step reports it. A caller that gives [`StoreErrorKind::NotFound`] or [`StoreErrorKind::Denied`] a meaning of
    /// its own looks at the kind first.
    #[must_use]
    pub fn into_failure(self, far: Far) -> Failure {
        use StoreErrorKind as Kind;
        let (unreachable, refused, full) = match far {
            Far::Relay => (Code::RelayUnreachable, Code::RelayProtocol, Code::SpoolFull),
            Far::AppServer => (Code::AppServerUnreachable, Code::AppServerRefused, Code::AppServerRefused),
        };
        let code = match self.kind {
            Kind::Unreachable | Kind::ConnectionLost | Kind::TimedOut => unreachable,
            Kind::NotFound | Kind::Denied | Kind::Exists if far == Far::AppServer => refused,
            Kind::NotFound => Code::NotFound,
            Kind::Denied | Kind::Exists => Code::RequestInvalid,
            Kind::Full => full,
            Kind::Refused | Kind::Unsupported | Kind::Protocol => refused,
            Kind::HostKeyUnknown => Code::HostKeyUnknown,
            Kind::AuthenticationRefused => Code::AuthenticationRefused,
            Kind::Certificate => Code::RelayCertificate,
            Kind::ProxyRefused => Code::ProxyRefused,
            Kind::Limit => Code::LimitExceeded,
            Kind::Source => return self.into_source_failure(),
            Kind::Internal => Code::Internal,
        };
        let transient = self.kind.is_transient();
        let failure = if transient { Failure::retry(code, self.message) } else { Failure::park(code, self.message) };
        match self.source {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }

    fn into_source_failure(self) -> Failure {
        match self.source.map(<dyn Error + Send + Sync>::downcast::<io::Error>) {
            Some(Ok(error)) => io_failure(self.message, *error),
            Some(Err(other)) => Failure::retry(Code::FileFailed, self.message).caused_by(other),
            None => Failure::retry(Code::FileFailed, self.message),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Disposition::{Park, Retry};

    use super::*;

    fn as_failure(kind: StoreErrorKind, far: Far) -> (Code, towpath_transfer::Disposition) {
        let failure = StoreError::new(kind, "trying").caused_by(io::Error::from(io::ErrorKind::StorageFull)).into_failure(far);
        assert!(failure.report().starts_with("trying"));
        (failure.code(), failure.disposition())
    }

    #[test]
    fn each_kind_has_its_code_and_disposition() {
        use StoreErrorKind as Kind;
        assert_eq!(as_failure(Kind::ConnectionLost, Far::Relay), (Code::RelayUnreachable, Retry));
        assert_eq!(as_failure(Kind::Unreachable, Far::AppServer), (Code::AppServerUnreachable, Retry));
        assert_eq!(as_failure(Kind::NotFound, Far::Relay), (Code::NotFound, Park));
        assert_eq!(as_failure(Kind::Denied, Far::AppServer), (Code::AppServerRefused, Park));
        assert_eq!(as_failure(Kind::Full, Far::Relay), (Code::SpoolFull, Retry));
        assert_eq!(as_failure(Kind::HostKeyUnknown, Far::Relay), (Code::HostKeyUnknown, Park));
        assert_eq!(as_failure(Kind::AuthenticationRefused, Far::Relay), (Code::AuthenticationRefused, Park));
        assert_eq!(as_failure(Kind::Protocol, Far::Relay), (Code::RelayProtocol, Park));
        assert_eq!(as_failure(Kind::ProxyRefused, Far::Relay), (Code::ProxyRefused, Retry));
        assert_eq!(as_failure(Kind::Source, Far::Relay), (Code::DiskFull, Retry));
        assert_eq!(as_failure(Kind::Limit, Far::Relay), (Code::LimitExceeded, Park));
    }

    #[test]
    fn the_report_names_each_cause_once() {
        let cause = io::Error::other("refused: by hand");
        let error = StoreError::new(StoreErrorKind::Unreachable, "connecting").caused_by(cause);
        assert_eq!((error.to_string().as_str(), error.report().as_str()), ("connecting", "connecting: refused: by hand"));
        assert_eq!(StoreError::new(StoreErrorKind::Unreachable, "x: y").caused_by(io::Error::other("y")).report(), "x: y");
    }
}
