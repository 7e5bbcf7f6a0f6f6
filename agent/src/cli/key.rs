//! `key`: the agent's own key pair.

use std::time::Duration;

use serde::Serialize;
use towpath_host::StateLock;
use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{Code, Failure, failure::Result};

use super::{
    args::{KeyCommand, OutputArgs},
    output, quietly,
};
use crate::{
    control::{self, Answer, Request},
    host::Host,
    rotation::Rotated,
    work::PROGRAM,
};

#[derive(Serialize)]
struct KeyView {
    public_key: String,
    fingerprint: String,
    path: String,
}

pub(super) async fn run(host: &Host, command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Show(args) => show(host, args),
        KeyCommand::Generate { kind } => {
            let identity = Identity::create_file(&host.layout.key(), *kind, &**host.entropy())?;
            output::line(&identity.fingerprint().to_string())
        }
        KeyCommand::Rotate { overlap, kind, output } => rotate(host, *overlap, *kind, output).await,
    }
}

fn show(host: &Host, args: &OutputArgs) -> Result<()> {
    let identity = host.identity()?;
    if args.json {
        let path = host.layout.key().display().to_string();
        let (public_key, fingerprint) = (identity.public_line().to_string(), identity.fingerprint().to_string());
        return output::json(&KeyView { public_key, fingerprint, path });
    }
    output::line(&identity.fingerprint().to_string())?;
    output::line(&identity.public_line().to_string())
}

/// By the agent that runs, because it has to go on with the new key; by this process where none does.
async fn rotate(host: &Host, overlap: Duration, kind: KeyKind, args: &OutputArgs) -> Result<()> {
    let asked = control::ask(&host.layout, &**host.clock(), &Request::RotateKey { overlap, kind }).await;
    let rotated = match asked {
        Ok(Answer::Rotated(rotated)) => rotated,
        Ok(_) => {
            let message = "the agent that runs has answered something else; it is of another version: restart the service";
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        Err(failure) if failure.code() == Code::NotRunning => alone(host, overlap, kind).await?,
        Err(failure) => return Err(failure),
    };
    if args.json {
        return output::json(&rotated);
    }
    output::line(&format!("the key is {} from now on", rotated.new))?;
    output::line(&format!("the one before, {}, is refused from {} on", rotated.old, rotated.old_until))?;
    let folder = host.layout.state().display();
    output::hint(&format!(
        "the receiver follows by itself; make a new backup of {folder}: a backup with the old key alone gets nowhere"
    ))
}

async fn alone(host: &Host, overlap: Duration, kind: KeyKind) -> Result<Rotated> {
    quietly(host, async |open| {
        let _lock = StateLock::take(&host.layout.lock(), PROGRAM)?;
        // Another process may have changed it before the lock was ours: the change begins with what lies on the disk.
        open.rotator.rotate(overlap, kind).await
    })
    .await
}
