//! Who may log in, and what a login gives.

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::public_key::PublicKeyLine;

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
}

/// What one login gives.
#[derive(Clone)]
pub struct Session {
    pub(super) view: View,
    pub(super) revoked: CancellationToken,
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
        Self { view: View::Tenant(view), revoked }
    }

    /// A tree with names of any kind; for tests and tools, never for a tenant.
    #[must_use]
    pub fn general(view: Arc<dyn VirtualFs<AnyPath>>, revoked: CancellationToken) -> Self {
        Self { view: View::General(view), revoked }
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
