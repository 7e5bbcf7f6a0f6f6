//! `serve`

use std::time::Duration;

use towpath_host::{Notifier, program};
use towpath_transfer::{Code, Failure};

use super::args::ServeArgs;
use crate::host::Host;

/// From the signal to the end of the program.
const SHUTDOWN: Duration = Duration::from_secs(30);

pub(super) async fn serve(host: &Host, args: &ServeArgs) -> Result<(), Failure> {
    let shutdown = program::stop_signal()?;
    let notifier = Notifier::from_environment();
    let serving = host.serve(args.listen.map(|address| address.to_string()), shutdown.clone(), || notifier.ready());
    let mut serving = std::pin::pin!(notifier.beside(&*host.clock, &shutdown, serving));
    tokio::select! {
        done = &mut serving => return done,
        () = shutdown.cancelled() => {}
    }
    // What does not end in time is in the same place as after a power cut, from which the next start goes on.
    tokio::time::timeout(SHUTDOWN, serving).await.unwrap_or_else(|_| {
        Err(Failure::park(Code::Cancelled, format!("something did not stop within {} s and was cut off", SHUTDOWN.as_secs())))
    })
}
