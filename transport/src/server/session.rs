//! Who may log in, and what a login gives.

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, public_key::PublicKeyLine};

use super::{path::AnyPath, vfs::VirtualFs};

/// Decides who logs in.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// What `user` gets who offers `key`; `None` refuses. The server has already refused keys of a kind or size that is
    /// not accepted.
    ///
    /// It is asked once when a key is offered and again when its possession is proven, so it must have no effect of its
    /// own, and answers an unknown user like an unknown key. `peer` is for records only: it never decides.
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, peer: SocketAddr) -> Option<Session>;

    /// A login of `user` was refused without asking: a password, a key of a kind that is not accepted, or one connection too many.
    /// For records only.
    fn refused(&self, user: &str, peer: SocketAddr, code: Code) {
        let _ = (user, peer, code);
    }
}

/// What one login gives.
#[derive(Clone)]
pub struct Session {
    pub(super) view: View,
    pub(super) revoked: CancellationToken,
    pub(super) logged_in: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Clone)]
pub(super) enum View {
    Tenant(Arc<dyn VirtualFs>),
    General(Arc<dyn VirtualFs<AnyPath>>),
}

impl Session {
    /// A tenant's view. When `revoked` is cancelled no further operation starts, and the connection ends.
    #[must_use]
    pub fn new(view: Arc<dyn VirtualFs>, revoked: CancellationToken) -> Self {
        Self { view: View::Tenant(view), revoked, logged_in: None }
    }

    /// A tree with names of any kind; for tests and tools, never for a tenant.
    #[must_use]
    pub fn general(view: Arc<dyn VirtualFs<AnyPath>>, revoked: CancellationToken) -> Self {
        Self { view: View::General(view), revoked, logged_in: None }
    }

    /// Calls `told` once when the login is complete: an authenticator is asked before that, and more than once.
    #[must_use]
    pub fn telling(self, told: impl Fn() + Send + Sync + 'static) -> Self {
        Self { logged_in: Some(Arc::new(told)), ..self }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("revoked", &self.revoked.is_cancelled()).finish_non_exhaustive()
    }
}

/// What every operation looks at before it starts.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// The connection, or this channel of it, is at its end.
    pub(super) stop: CancellationToken,
    /// The login was withdrawn.
    pub(super) revoked: CancellationToken,
}

impl Watch {
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.revoked.is_cancelled()
    }
}
