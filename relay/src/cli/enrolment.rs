//! `enrolment`

use serde_json::json;
use towpath_transfer::{TenantName, api::Role, failure::Result};

use super::{
    args::EnrolmentCommand,
    audit::{by_operator, noted},
    output,
};
use crate::{
    access::Access,
    audit::Action,
    host::Host,
    registry::{EnrolmentRow, MAX_OPEN_ENROLMENTS, NewEnrolment, Registry},
    scope::TenantScope,
};

pub(super) async fn run(host: &Host, command: EnrolmentCommand) -> Result<()> {
    host.prepare()?;
    let registry = host.registry().await?;
    match command {
        EnrolmentCommand::Create { tenant, role, name, expires } => {
            let scope = registry.operator_scope(&tenant).await?;
            let new = NewEnrolment {
                role,
                name,
                valid_for: expires.unwrap_or(host.config.enrolment.expires).0,
                relay_url: host.config.relay.public_url.clone(),
                spki_pin: host.certificate()?.pin,
            };
            let entry = by_operator(host, Action::CodeCreate).of(&tenant).detail(role.to_string());
            let create = async |registry: Registry| registry.create_enrolment(&scope, new).await;
            let (code, name) = noted(&registry, entry, create).await?;
            // An agent's host is set up by questions, of which the code is the first.
            let next = if role == Role::Agent { "init" } else { "enrol CODE --landing HOST:PORT" };
            output::say(&format!(
                "on that host: towpath-{role} {next}    (it becomes {role} {name} of {tenant} at {})",
                code.relay_url
            ));
            output::line(&code.to_string())
        }
        EnrolmentCommand::Revoke { tenant, name } => {
            let scope = registry.operator_scope(&tenant).await?;
            let entry = by_operator(host, Action::CodeRevoke).of(&tenant).detail(name.to_string());
            let revoke = async |registry: Registry| {
                // First, so that a registry that is put back later does not let anybody use it.
                if let Some(code) = registry.open_code(&scope, &name).await? {
                    host.access_log().note(Access::Redeemed { code }).await?;
                }
                registry.revoke_code(&scope, &name).await
            };
            noted(&registry, entry, revoke).await?;
            output::say(&format!(
                "nobody becomes {name} of {tenant} by that code any more; another one: towpath-relay enrolment create"
            ));
            Ok(())
        }
        EnrolmentCommand::List { tenant, json } => {
            let mut found = Vec::new();
            for scope in scopes(&registry, tenant).await? {
                found.extend(registry.enrolments(&scope, u32::try_from(MAX_OPEN_ENROLMENTS).unwrap_or(u32::MAX)).await?);
            }
            show(host, &found, json)
        }
    }
}

/// One tenant, or all of them.
pub(super) async fn scopes(registry: &Registry, tenant: Option<TenantName>) -> Result<Vec<TenantScope>> {
    match tenant {
        Some(tenant) => Ok(vec![registry.operator_scope(&tenant).await?]),
        None => {
            let mut scopes = Vec::new();
            for row in registry.tenants().await? {
                scopes.push(registry.operator_scope(&row.name).await?);
            }
            Ok(scopes)
        }
    }
}

fn show(host: &Host, rows: &[EnrolmentRow], json: bool) -> Result<()> {
    let now = host.clock.now();
    let state = |row: &EnrolmentRow| match &row.used_by {
        Some(_) => "used",
        None if row.expires <= now => "expired",
        None => "open",
    };
    if json {
        let row = |row: &EnrolmentRow| {
            json!({
                "tenant": row.tenant, "role": row.role, "name": row.name, "state": state(row), "created": row.created,
                "expires": row.expires, "used_by": row.used_by.as_ref().map(|key| key.fingerprint()), "used_at": row.used_at,
            })
        };
        return output::json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let cells = |row: &EnrolmentRow| {
        let used = row.used_by.as_ref().map_or_else(|| "-".to_owned(), |key| key.fingerprint().to_string());
        let name = row.name.to_string();
        vec![row.tenant.to_string(), row.role.to_string(), name, state(row).to_owned(), row.expires.to_string(), used]
    };
    let head = ["tenant", "role", "name", "state", "expires", "used by"];
    output::table(&head, rows.iter().map(cells).collect(), "there are no enrolment codes")
}
