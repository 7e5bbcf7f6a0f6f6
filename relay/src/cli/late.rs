//! `late`

use serde_json::json;
use towpath_transfer::failure::Result;

use super::{args::LateArgs, output};
use crate::{host::Host, registry::Expected};

pub(super) async fn run(host: &Host, options: &LateArgs) -> Result<()> {
    host.prepare()?;
    let (now, mut late) = (host.clock.now(), host.registry().await?.expected().await?);
    late.retain(|expected| expected.is_late(now));
    if options.json {
        let row = |e: &Expected| json!({"tenant": e.tenant, "agent": e.agent, "job": e.job, "expected_by": e.by, "last_heard": e.heard});
        return output::json(&late.iter().map(row).collect::<Vec<_>>());
    }
    let row = |e: &Expected| {
        let by = e.by.map_or_else(|| "-".to_owned(), |by| by.to_string());
        vec![e.tenant.to_string(), e.agent.to_string(), e.job.to_string(), by, e.heard.to_string()]
    };
    let head = ["tenant", "agent", "job", "expected by", "last heard of"];
    output::table(&head, late.iter().map(row).collect(), "nothing is late")
}
