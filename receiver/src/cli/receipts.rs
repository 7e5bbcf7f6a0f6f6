//! `receipts`: what is proven, and by whom.

use towpath_journal::Filter;
use towpath_transfer::{Code, Failure};

use super::{args::ReceiptsArgs, output, transfer::find};
use crate::{chain, host::Host};

pub(super) async fn verify(host: &Host, args: &ReceiptsArgs) -> Result<(), Failure> {
    let parts = host.parts().await?;
    let record = match args.transfer {
        Some(id) => find(host, &*parts.journal, id, args.agent.as_ref()).await?,
        None => {
            let ended = Filter { ended: Some(true), agent: args.agent.clone(), ..Filter::default() };
            let none = || Failure::park(Code::NotFound, "no transfer has ended yet, so there is no receipt");
            parts.journal.list(&ended, 1, None).await?.into_iter().next().ok_or_else(none)?
        }
    };
    let chain = chain::verify(&parts, &record)?;
    if args.json {
        output::json(&chain)?;
    } else {
        output::line(&chain.lines().join("\n"))?;
    }
    chain.problem().map_or(Ok(()), Err)
}
