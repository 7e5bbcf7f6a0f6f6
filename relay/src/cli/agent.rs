//! `agent`

use serde_json::json;
use towpath_transfer::failure::Result;

use super::{
    args::AgentCommand,
    audit::{by_operator, noted},
    enrolment::scopes,
    output,
};
use crate::{
    access::Access,
    audit::Action,
    host::Host,
    registry::{End, Registry},
};

pub(super) async fn run(host: &Host, command: AgentCommand) -> Result<()> {
    host.prepare()?;
    let registry = host.registry().await?;
    match command {
        AgentCommand::Revoke { tenant, name } => {
            let scope = registry.operator_scope(&tenant).await?;
            let entry = by_operator(host, Action::Revoke).of(&tenant).detail(name.to_string());
            let revoke = async |registry: Registry| {
                // First, so that a registry that is put back later does not undo it.
                if let Some(end) = registry.end(&scope, &name).await? {
                    // By the key it enrolled with, which every registry has that knows it at all.
                    let (tenant, name, key) = (tenant.clone(), name.clone(), end.key.fingerprint());
                    host.access_log().note(Access::Revoked { tenant, name, key }).await?;
                }
                registry.revoke(&scope, &name).await
            };
            noted(&registry, entry, revoke).await?;
            output::say(&format!("{name} of {tenant} is revoked; a running relay ends its sessions within seconds"));
            Ok(())
        }
        AgentCommand::List { tenant, json } => {
            let mut ends = Vec::new();
            for scope in scopes(&registry, tenant).await? {
                ends.extend(registry.ends(&scope).await?);
            }
            if json {
                let row = |end: &End| {
                    json!({
                        "tenant": end.tenant, "name": end.name, "role": end.role, "fingerprint": end.fingerprint(),
                        "public_key": end.newest_key(), "enrolled": end.enrolled, "revoked": end.revoked,
                    })
                };
                return output::json(&ends.iter().map(row).collect::<Vec<_>>());
            }
            let row = |end: &End| {
                let state = end.revoked.map_or_else(|| "-".to_owned(), |at| at.to_string());
                let (tenant, name, role) = (end.tenant.to_string(), end.name.to_string(), end.role.to_string());
                vec![tenant, name, role, end.fingerprint().to_string(), end.enrolled.to_string(), state]
            };
            let head = ["tenant", "name", "role", "fingerprint", "enrolled", "revoked"];
            output::table(&head, ends.iter().map(row).collect(), "nobody has enrolled yet")
        }
    }
}
