//! `quarantine`

use serde::Serialize;
use towpath_transfer::Failure;
use towpath_transport::files::Disk;

use super::{args::QuarantineCommand, output};
use crate::{
    host::Host,
    quarantine::{self, Quarantined, QuarantinedFile},
};

/// What `quarantine list --json` prints.
#[derive(Serialize)]
struct Listed {
    transfers: Vec<Quarantined>,
}

/// What `quarantine show --json` prints.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    transfer: Quarantined,
    files: Vec<QuarantinedFile>,
}

pub(super) fn run(host: &Host, command: &QuarantineCommand) -> Result<(), Failure> {
    let layout = host.layout();
    match command {
        QuarantineCommand::List { json } => {
            let transfers = quarantine::list(&Disk, layout)?;
            if *json {
                return output::json(&Listed { transfers });
            }
            let rows = transfers.iter().map(|entry| {
                let (time, code, detail) = why(entry);
                vec![entry.transfer.to_string(), entry.agent.to_string(), time, code, detail]
            });
            output::table(&["transfer", "agent", "rejected", "code", "detail"], rows.collect(), "nothing is in quarantine")
        }
        QuarantineCommand::Show(args) => {
            let (transfer, files) = quarantine::show(&Disk, layout, args.transfer, args.agent.as_ref())?;
            if args.json {
                return output::json(&Shown { transfer, files });
            }
            let (time, code, detail) = why(&transfer);
            output::line(&format!("transfer {} of agent {}, rejected {time}", transfer.transfer, transfer.agent))?;
            output::line(&format!("{code}: {detail}"))?;
            output::line(&format!("{}", transfer.folder.display()))?;
            let rows = files.into_iter().map(|file| vec![file.name, file.size.to_string()]);
            output::table(&["file", "bytes"], rows.collect(), "it has no files")?;
            output::say(&format!(
                "see docs/errors/{code}.md; check it again: towpath-receiver verify {}",
                transfer.folder.display()
            ));
            Ok(())
        }
        QuarantineCommand::Release(args) => {
            let released = quarantine::release(&Disk, layout, args.transfer, args.agent.as_ref())?;
            output::line(&format!(
                "removed transfer {} of agent {} from quarantine; it stays rejected",
                released.transfer, released.agent
            ))
        }
    }
}

fn why(entry: &Quarantined) -> (String, String, String) {
    match &entry.reason {
        Some(reason) => (reason.time.to_string(), reason.rejection.code.to_string(), reason.rejection.detail.clone()),
        None => ("?".to_owned(), "?".to_owned(), "its reason.json is missing".to_owned()),
    }
}
