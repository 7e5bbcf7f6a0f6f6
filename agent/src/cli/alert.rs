//! `alert test`.

use std::sync::Arc;

use serde::Serialize;
use towpath_alert::{Told, Trouble};
use towpath_transfer::{Code, Failure, TransferId, failure::Result};

use super::{args::AlertCommand, output};
use crate::{
    alert,
    config::SharedConfig,
    host::{Host, not_enrolled},
};

#[derive(Serialize)]
struct TestView {
    way: &'static str,
    /// `told`, `failed`, or `not-configured`.
    result: &'static str,
    error: Option<String>,
}

pub(super) async fn run(host: &Host, command: &AlertCommand) -> Result<()> {
    let AlertCommand::Test(args) = command;
    let enrolment = host.enrolment()?.ok_or_else(|| not_enrolled(&host.layout))?;
    let clock = Arc::clone(host.clock());
    let trouble = Trouble {
        agent: enrolment.name.clone(),
        tenant: enrolment.tenant.clone(),
        job: None,
        code: Code::AlertFailed,
        summary: format!("a test of the alerts of agent {} of tenant {}: nothing is wrong", enrolment.name, enrolment.tenant),
        since: clock.now(),
        transfer: None,
    };
    let id = format!("{}-test", TransferId::new(&*clock, &**host.entropy()));
    let tried = alert::test(SharedConfig::new(host.settings().clone()), clock, &trouble, &id).await;
    let views: Vec<TestView> = tried.iter().map(|(way, result)| view(way.as_str(), result)).collect();
    if args.json {
        output::json(&views)?;
    } else {
        for view in &views {
            let why = view.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            output::line(&format!("{}: {}{why}", view.way, view.result.replace('-', " ")))?;
        }
    }
    let failed = tried.into_iter().filter_map(|(_, result)| result.err()).next();
    if let Some(failure) = failed {
        return Err(failure);
    }
    if views.iter().all(|view| view.result == "not-configured") {
        let message = "nobody is told: set `program` or `webhook` in [alert] of the configuration";
        return Err(Failure::park(Code::AlertFailed, message));
    }
    Ok(())
}

fn view(way: &'static str, result: &Result<Told>) -> TestView {
    let (result, error) = match result {
        Ok(Told::Told) => ("told", None),
        Ok(Told::NotConfigured) => ("not-configured", None),
        Err(failure) => ("failed", Some(failure.report())),
    };
    TestView { way, result, error }
}
