//! `serve`

use std::sync::Arc;

use towpath_host::{Notifier, program};
use towpath_journal::FailPoints;
use towpath_transfer::failure::Result;

use super::args::ServeArgs;
use crate::host::Host;

pub(super) async fn serve(host: Host, _: ServeArgs) -> Result<()> {
    let (notifier, stop, clock) = (Notifier::from_environment(), program::stop_signal()?, Arc::clone(&host.clock));
    let serving = Box::pin(host.serve(fail_points()?, stop.clone(), |_| notifier.ready()));
    notifier.beside(&*clock, &stop, serving).await
}

#[cfg(feature = "failpoints")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    towpath_journal::failpoints::from_environment(towpath_transfer::state::Place::Relay)
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    Ok(Arc::new(towpath_journal::NoFailPoints))
}
