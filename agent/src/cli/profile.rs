//! `profile`: works without configuration, state and network.

use serde::Serialize;
use towpath_transfer::{Code, Failure, failure::Result};

use super::{args::ProfileCommand, output};
use crate::{config::Profile, planning::Contract};

/// What `profile list` calls a profile that nobody has run yet.
const NOT_RUN: &str = "not run here";

#[derive(Serialize)]
struct ProfileView {
    name: String,
    erp: String,
    sources: Vec<String>,
    tested: Option<String>,
    parameters: Vec<String>,
}

pub(super) fn run(command: &ProfileCommand) -> Result<()> {
    match command {
        ProfileCommand::List(args) => {
            let profiles = Profile::built_in()?;
            if args.json {
                return output::json(&profiles.into_iter().map(view).collect::<Vec<_>>());
            }
            let row = |profile: Profile| {
                let tested = if profile.tested.is_some() { "yes" } else { NOT_RUN };
                vec![profile.name, profile.erp, profile.sources.join(", "), tested.to_owned()]
            };
            let rows = profiles.into_iter().map(row).collect();
            output::table(&["name", "erp", "source", "tested"], rows, "this program has no profiles")
        }
        ProfileCommand::Show { name, output: args } => {
            let unknown = |problem: String| Failure::park(Code::ConfigInvalid, problem);
            let here = std::path::Path::new("");
            let profile: Profile = Profile::find(name, here, unknown)?;
            if args.json {
                return output::json(&profile);
            }
            match Profile::text(name) {
                Some(text) => output::line(text.trim_end()),
                None => output::line(towpath_host::config::read_text(&here.join(name))?.trim_end()),
            }
        }
        ProfileCommand::Contract(args) => {
            let contract = Contract::get()?;
            if args.json { output::json(&contract) } else { output::line(contract.markdown().trim_end()) }
        }
    }
}

fn view(profile: Profile) -> ProfileView {
    ProfileView {
        name: profile.name,
        erp: profile.erp,
        sources: profile.sources,
        tested: profile.tested,
        parameters: profile.parameters.into_iter().map(|parameter| parameter.name).collect(),
    }
}
