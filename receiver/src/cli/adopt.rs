//! `adopt`

use towpath_transfer::Failure;

use super::{args::AdoptArgs, output};
use crate::{host::Host, import::ImportScope};

pub(super) async fn adopt(host: &Host, args: AdoptArgs) -> Result<(), Failure> {
    let scope = ImportScope { agent: args.agent, job: args.job };
    let whose =
        if host.import_target()?.adopt(&scope).await? { "are this receiver's now" } else { "were this receiver's already" };
    output::line(&format!("the tables of job {} of agent {} {whose}", scope.job, scope.agent))
}
