//! `reload`: asks the agent that runs to read its configuration again.

use towpath_transfer::{Code, Failure, failure::Result};

use super::{args::OutputArgs, output};
use crate::{
    control::{self, Answer, Request},
    host::Host,
};

pub(super) async fn run(host: &Host, args: &OutputArgs) -> Result<()> {
    let Answer::Reloaded(reloaded) = control::ask(&host.layout, &**host.clock(), &Request::Reload).await? else {
        let message = "the agent that runs has answered something else; it is of another version: restart the service";
        return Err(Failure::park(Code::RequestInvalid, message));
    };
    if args.json {
        return output::json(&reloaded);
    }
    let file = reloaded.file.display();
    if reloaded.changed.is_empty() {
        output::line(&format!("{file}: nothing has changed that could be put in force"))?;
    } else {
        output::line(&format!("{file}: in force now: {}", reloaded.changed.join(", ")))?;
    }
    if !reloaded.needs_restart.is_empty() {
        output::line(&format!("from the next start on: {}", reloaded.needs_restart.join(", ")))?;
    }
    Ok(())
}
