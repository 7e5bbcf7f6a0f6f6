//! `receiver`: whom this agent believes.

use clap::Subcommand;
use towpath_journal::{Filter, MAX_LIST};
use towpath_transfer::{Code, Direction, Failure, failure::Result, public_key::Fingerprint};
use towpath_transport::relay_api::RelayApi as _;

use super::{args::OutputArgs, enrol::ReceiverView, output, quietly};
use crate::{
    host::{Host, OpenHost},
    parts::Parts,
    trust::{KnownReceiver, pinned_receivers, proven_receiver},
};

/// `receiver`
#[derive(Debug, Subcommand)]
pub(super) enum ReceiverCommand {
    /// The receivers that are approved here, and those the relay names.
    List(OutputArgs),
    /// Believe receipts by this key from now on. Compare the fingerprint with the receiver's operator first.
    Approve {
        /// As the receiver's operator reads it out: SHA256:…
        fingerprint: Fingerprint,
    },
    /// Believe a receiver no more, until one of its keys is approved again: its receipts end no transfer, and its return files are
    /// not taken. Transfers wait, and nothing is lost.
    Remove {
        /// The receiver's name, as `list` shows it.
        name: String,
    },
}

pub(super) async fn run(host: &Host, command: &ReceiverCommand) -> Result<()> {
    quietly(host, async |open| match command {
        ReceiverCommand::List(args) => list(open, args.json).await,
        ReceiverCommand::Approve { fingerprint } => approve(open, *fingerprint).await,
        ReceiverCommand::Remove { name } => {
            let keys = open.parts.trust.withdraw(&open.parts.agent, name)?;
            let keys = if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") };
            output::line(&format!(
                "receiver {name} is believed no more ({keys} removed); what waits for it goes on once one is approved"
            ))
        }
    })
    .await
}

async fn list(open: &OpenHost, json: bool) -> Result<()> {
    let mut known = pinned_receivers(&open.parts.trust.signers()?, &open.parts.agent);
    match named_by_relay(open).await {
        Ok(named) => known.extend(named.into_iter().filter(|one| !known.iter().any(|k| k.key == one.key)).collect::<Vec<_>>()),
        // What is approved here can be told without the relay.
        Err(failure) => output::say(&format!("warning: the relay was not asked: {}", failure.report())),
    }
    if json {
        return output::json(&known.iter().map(ReceiverView::from).collect::<Vec<_>>());
    }
    let word = |pinned| if pinned { "approved" } else { "not approved" };
    let row = |one: &KnownReceiver| vec![one.name.clone(), one.key.fingerprint().to_string(), word(one.pinned).to_owned()];
    output::table(&["receiver", "fingerprint", "trust"], known.iter().map(row).collect(), "no receiver is known yet")
}

pub(super) async fn named_by_relay(open: &OpenHost) -> Result<Vec<KnownReceiver>> {
    let mut named = Vec::new();
    for peer in open.relay.peers().await?.peers {
        match proven_receiver(&peer) {
            Ok(receiver) => named.extend(receiver),
            Err(failure) => output::say(&format!("warning: {} is not believed: {}", peer.name, failure.report())),
        }
    }
    Ok(named)
}

async fn approve(open: &OpenHost, fingerprint: Fingerprint) -> Result<()> {
    let parts = &open.parts;
    let pinned = pinned_receivers(&parts.trust.signers()?, &parts.agent);
    if let Some(known) = pinned.iter().find(|receiver| receiver.key.fingerprint() == fingerprint) {
        output::line(&format!("receiver {} is approved already", known.name))?;
        return release(parts).await;
    }
    let named = named_by_relay(open).await?;
    let unknown = || {
        let message = format!("the relay names no receiver with the key {fingerprint}; see: towpath-agent receiver list");
        Failure::park(Code::NotFound, message)
    };
    let receiver = named.into_iter().find(|receiver| receiver.key.fingerprint() == fingerprint).ok_or_else(unknown)?;
    parts.trust.approve(&receiver.name, &receiver.key)?;
    output::line(&format!("receiver {} is approved: its receipts and return files are believed from now on", receiver.name))?;
    release(parts).await
}

/// What waited for the approval goes on.
async fn release(parts: &Parts) -> Result<()> {
    let filter = Filter { ended: Some(false), ..Filter::default() };
    for record in parts.journal.list(&filter, MAX_LIST, None).await? {
        if record.last_failure.as_ref().is_some_and(|failure| failure.code == Code::ReceiverUnapproved) {
            parts.journal.unpark(&record.key).await?;
            let next = if record.direction == Direction::Uplink { "send" } else { "receive" };
            output::hint(&format!("transfer {} goes on with the next `towpath-agent run` or `{next}`", record.key.id))?;
        }
    }
    Ok(())
}
