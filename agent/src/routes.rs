//! The way to the relay's SFTP: SSH as it is, and inside TLS where a firewall lets nothing else through.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use towpath_transport::store::{Connect, RemoteStore, StoreError, StoreErrorKind, StoreResult};

/// Two ways to the same server; the one that worked last is tried first.
#[derive(Debug)]
pub struct Routes {
    direct: Arc<dyn Connect>,
    detour: Arc<dyn Connect>,
    prefers_detour: AtomicBool,
}

impl Routes {
    /// Tries `direct` first, until `detour` has worked where it did not.
    pub fn new(direct: Arc<dyn Connect>, detour: Arc<dyn Connect>) -> Self {
        Self { direct, detour, prefers_detour: AtomicBool::new(false) }
    }
}

/// Whether the other way may help: not where the server was reached and has said no.
fn was_blocked(kind: StoreErrorKind) -> bool {
    use StoreErrorKind as Kind;
    matches!(kind, Kind::Unreachable | Kind::TimedOut | Kind::ConnectionLost | Kind::Protocol)
}

#[async_trait]
impl Connect for Routes {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        let detour_first = self.prefers_detour.load(Ordering::Relaxed);
        let (first, second) = if detour_first { (&self.detour, &self.direct) } else { (&self.direct, &self.detour) };
        let blocked = match first.connect().await {
            Err(error) if was_blocked(error.kind()) => error,
            other => return other,
        };
        match second.connect().await {
            Ok(store) => {
                tracing::info!(detour = !detour_first, "SSH goes another way, because this one failed: {blocked}");
                self.prefers_detour.store(!detour_first, Ordering::Relaxed);
                Ok(store)
            }
            // A refusal by the server itself says more than a way that was blocked.
            Err(refused) if !was_blocked(refused.kind()) && refused.kind() != StoreErrorKind::Certificate => Err(refused),
            Err(error) => {
                Err(StoreError::new(blocked.kind(), format!("{blocked}, and the other way: {error}")).caused_by(blocked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use towpath_transport::store::MemoryStore;

    use super::*;

    #[derive(Debug)]
    struct Way {
        fails: Mutex<Option<StoreErrorKind>>,
        tried: Mutex<u32>,
    }

    impl Way {
        fn new(fails: Option<StoreErrorKind>) -> Arc<Self> {
            Arc::new(Self { fails: Mutex::new(fails), tried: Mutex::new(0) })
        }

        fn tried(&self) -> u32 {
            *self.tried.lock().unwrap()
        }
    }

    #[async_trait]
    impl Connect for Way {
        async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
            *self.tried.lock().unwrap() += 1;
            match *self.fails.lock().unwrap() {
                Some(kind) => Err(StoreError::new(kind, "on purpose")),
                None => Ok(Arc::new(MemoryStore::new())),
            }
        }
    }

    #[tokio::test]
    async fn the_detour_is_taken_where_the_direct_way_is_blocked_and_then_remembered() {
        let (direct, detour) = (Way::new(Some(StoreErrorKind::Unreachable)), Way::new(None));
        let routes = Routes::new(direct.clone(), detour.clone());
        routes.connect().await.unwrap();
        routes.connect().await.unwrap();
        assert_eq!((direct.tried(), detour.tried()), (1, 2));
        *detour.fails.lock().unwrap() = Some(StoreErrorKind::TimedOut);
        *direct.fails.lock().unwrap() = None;
        routes.connect().await.unwrap();
        routes.connect().await.unwrap();
        assert_eq!((direct.tried(), detour.tried()), (3, 3));
    }

    #[tokio::test]
    async fn a_server_that_says_no_is_not_asked_another_way() {
        let (direct, detour) = (Way::new(Some(StoreErrorKind::HostKeyUnknown)), Way::new(None));
        let error = Routes::new(direct, detour.clone()).connect().await.unwrap_err();
        assert_eq!((error.kind(), detour.tried()), (StoreErrorKind::HostKeyUnknown, 0));
        let (direct, detour) = (Way::new(Some(StoreErrorKind::TimedOut)), Way::new(Some(StoreErrorKind::Unreachable)));
        let error = Routes::new(direct, detour).connect().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TimedOut);
        assert!(error.to_string().contains("the other way"));
        let (direct, detour) = (Way::new(Some(StoreErrorKind::TimedOut)), Way::new(Some(StoreErrorKind::AuthenticationRefused)));
        let error = Routes::new(direct, detour).connect().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::AuthenticationRefused);
    }
}
