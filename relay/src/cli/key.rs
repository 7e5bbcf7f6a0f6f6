//! `key`: the relay's own keys, present and next.

use std::path::Path;

use serde_json::json;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{args::KeyCommand, audit::by_operator, output};
use crate::{
    audit::{Action, Entry},
    host::Host,
    keyring::{KeyUse, Present},
    registry::{Follower, Registry},
};

/// The most ends that are listed, and that a refusal counts.
const MAX_LISTED: u32 = 1_000;
/// The most ends that a refusal names.
const MAX_NAMED: usize = 20;

pub(super) async fn run(host: &Host, command: KeyCommand) -> Result<()> {
    host.prepare()?;
    let (registry, folder) = (host.registry().await?, host.key_folder());
    match command {
        KeyCommand::List { json } => list(&registry, &folder.look(None)?, json).await,
        KeyCommand::Announce { what, certificate, key } => {
            if certificate.is_some() && what != KeyUse::Certificate {
                let message = "--certificate and --key belong to: towpath-relay key announce certificate";
                return Err(Failure::park(Code::RequestInvalid, message));
            }
            let files = certificate.as_deref().zip(key.as_deref());
            let announce = async { folder.announce(what, files.map(|(one, other): (&Path, &Path)| (one, other))) };
            let present = registry.audited(entry(host, Action::KeyAnnounce, what), announce).await?;
            let since = present.next_since(what).unwrap_or(present.announced.serial);
            output::say(&format!(
                "announced (announcement {since}): ends learn of it with their next call, at the latest within the hour.\n\
                 When `towpath-relay key list` names nobody any more: towpath-relay key switch {what}"
            ));
            show_next(&present, what)
        }
        KeyCommand::Switch { what, force } => switch(host, &registry, what, force).await,
        KeyCommand::Withdraw { what } => {
            let present = registry.audited(entry(host, Action::KeyWithdraw, what), async { folder.withdraw(what) }).await?;
            let serial = present.announced.serial;
            output::say(&format!("the next {what} is taken back (announcement {serial}); the present one stays"));
            Ok(())
        }
    }
}

async fn switch(host: &Host, registry: &Registry, what: KeyUse, force: bool) -> Result<()> {
    let folder = host.key_folder();
    let missing =
        || Failure::park(Code::NotFound, format!("there is no next {what}: first run towpath-relay key announce {what}"));
    let since = folder.look(None)?.next_since(what).ok_or_else(missing)?;
    let behind = registry.followers_below(since, MAX_LISTED).await?;
    if !behind.is_empty() && !force {
        return Err(not_yet(what, since, &behind));
    }
    let forced = if behind.is_empty() { String::new() } else { format!(", although {} had not pinned it", named(&behind)) };
    let entry = entry(host, Action::KeySwitch, what).detail(format!("{what} of announcement {since}{forced}"));
    let present = registry.audited(entry, async { folder.switch(what) }).await?;
    let serial = present.announced.serial;
    output::say(&format!("switched (announcement {serial}); a running relay takes it within seconds and keeps its connections"));
    if what == KeyUse::Certificate && present.certificate.pin.is_some() {
        output::say("enrolment codes that were made before carry the pin of the certificate before: make new ones");
    }
    Ok(())
}

fn not_yet(what: KeyUse, since: u64, behind: &[Follower]) -> Failure {
    let message = format!(
        "not switched: {} ({}) has not pinned announcement {since}, which names the next {what}, and could not connect any more. \
         Wait until it has been in touch; where it is gone for good, revoke it (towpath-relay agent revoke) or add --force",
        if behind.len() == 1 { "one end".to_owned() } else { format!("each of {} ends", behind.len()) },
        named(behind)
    );
    Failure::park(Code::RequestInvalid, message)
}

fn named(ends: &[Follower]) -> String {
    let mut names: Vec<String> = ends.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if ends.len() > MAX_NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn entry(host: &Host, action: Action, what: KeyUse) -> Entry {
    by_operator(host, action).detail(what.to_string())
}

fn show_next(present: &Present, what: KeyUse) -> Result<()> {
    let next = present.rows.iter().filter(|row| row.next && row.what == what);
    let lines: Vec<String> = next.map(|row| format!("{}\t{}\t{}", row.what, row.algorithm, row.fingerprint)).collect();
    output::line(&lines.join("\n"))
}

async fn list(registry: &Registry, present: &Present, as_json: bool) -> Result<()> {
    let ends = registry.followers(MAX_LISTED).await?;
    let next: Vec<(KeyUse, u64)> =
        KeyUse::ALL.into_iter().filter_map(|what| present.next_since(what).map(|since| (what, since))).collect();
    let waits =
        |end: &Follower| -> Vec<KeyUse> { next.iter().filter(|(_, since)| end.pinned < *since).map(|(what, _)| *what).collect() };
    if as_json {
        let end = |end: &Follower| {
            json!({
                "tenant": end.tenant, "name": end.name, "role": end.role, "pinned": end.pinned, "since": end.since,
                "behind": waits(end),
            })
        };
        return output::json(&json!({
            "announcement": present.announced.serial, "issued": present.issued, "keys": present.rows,
            "ends": ends.iter().map(end).collect::<Vec<_>>(),
        }));
    }
    let rows = present.rows.iter().map(|row| {
        let state = if row.next { "next" } else { "present" };
        vec![row.what.to_string(), state.to_owned(), row.algorithm.clone(), row.fingerprint.clone(), row.since.to_string()]
    });
    output::table(&["key", "state", "kind", "fingerprint", "announced in"], rows.collect(), "there are no keys")?;
    for (what, since) in &next {
        let behind: Vec<Follower> = ends.iter().filter(|end| end.pinned < *since).cloned().collect();
        let told = match behind.as_slice() {
            [] => format!("every end has pinned the next {what}: towpath-relay key switch {what}"),
            behind => format!("not pinned yet is the next {what} by: {}", named(behind)),
        };
        output::say(&told);
    }
    Ok(())
}
