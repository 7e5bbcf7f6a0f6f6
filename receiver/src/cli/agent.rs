//! `agent`

use serde::Serialize;
use towpath_keys::AllowedSigners;
use towpath_transfer::{AgentName, Code, Failure, public_key::Fingerprint};
use towpath_transport::relay_api::RelayApi as _;

use super::{args::AgentCommand, output};
use crate::{
    agents::{self, Approval, KnownAgent, Standing},
    host::Host,
};

/// What `agent list --json` prints.
#[derive(Serialize)]
struct Listed {
    relay_asked: bool,
    agents: Vec<KnownAgent>,
}

/// What `agent approve --json` prints.
#[derive(Serialize)]
struct Approved {
    name: AgentName,
    fingerprint: Fingerprint,
}

pub(super) async fn run(host: &Host, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::List { json } => list(host, json).await,
        AgentCommand::Approve { fingerprint, only, json } => {
            let approval = if only { Approval::NewestOnly } else { Approval::WithEarlier };
            let (relay, pins, tenant) = (host.relay()?, host.layout().allowed_signers(), host.enrolment()?.tenant);
            let name = agents::approve(&relay, &pins, &fingerprint, &tenant, approval).await?;
            if json {
                return output::json(&Approved { name, fingerprint });
            }
            output::line(&format!("approved agent {name} with the key {fingerprint}"))
        }
        AgentCommand::Remove { name } => match agents::remove(&host.layout().allowed_signers(), &name)? {
            0 => Err(Failure::park(Code::NotFound, format!("no key of agent {name} is approved here"))),
            keys => output::line(&format!(
                "agent {name} is believed no more ({keys} {} removed)",
                if keys == 1 { "key" } else { "keys" }
            )),
        },
    }
}

async fn list(host: &Host, json: bool) -> Result<(), Failure> {
    let signers = AllowedSigners::load(&host.layout().allowed_signers())?;
    let peers = match host.relay()?.peers().await {
        Ok(peers) => Some(peers.peers),
        Err(failure) => {
            output::say(&format!("warning: only the approved keys are shown: {}", failure.report()));
            None
        }
    };
    let agents = agents::list(peers.as_deref(), &signers, &host.enrolment()?.tenant);
    if json {
        return output::json(&Listed { relay_asked: peers.is_some(), agents });
    }
    let waiting =
        agents.iter().any(|agent| matches!(agent.standing, Standing::Waiting | Standing::Changed | Standing::Withdrawn));
    let rows = agents.iter().map(|agent| {
        let standing = match agent.standing {
            Standing::Approved => "approved",
            Standing::Waiting => "waiting for approval",
            Standing::Changed => "waiting for approval; another key of this agent is approved",
            Standing::Follows => "follows an approved key",
            Standing::Withdrawn => "believed no more, until it is approved again",
            Standing::ProofInvalid => "its proof is wrong; cannot be approved",
        };
        let enrolled = match agent.enrolled {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        vec![agent.name.to_string(), agent.fingerprint.to_string(), standing.to_owned(), enrolled.to_owned()]
    });
    output::table(&["name", "fingerprint", "standing", "enrolled"], rows.collect(), "no agent is enrolled yet")?;
    if waiting {
        output::say(
            "compare the fingerprint on the ERP host (towpath-agent key show), then: towpath-receiver agent approve FINGERPRINT",
        );
    }
    Ok(())
}
