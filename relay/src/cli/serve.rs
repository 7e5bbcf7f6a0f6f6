//! `serve`

use std::sync::Arc;

use towpath_host::program;
use towpath_journal::FailPoints;
use towpath_transfer::failure::Result;

use super::args::ServeArgs;
use crate::host::Host;

pub(super) async fn serve(host: Host, _: ServeArgs) -> Result<()> {
    host.serve(fail_points()?, program::stop_signal()?, |_| {}).await
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
