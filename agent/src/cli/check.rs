//! `extract --check`: whether the ERP has what a job reads, and the job what the planning data contract says. Reads no rows.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use towpath_host::program;
use towpath_transfer::{Code, Failure, JobName, failure::Result};

use super::{args::ExtractArgs, output};
use crate::{
    config::{ErpTable, JobConfig, Profile, TableConfig},
    extract::{TableCheck, check_source},
    host::Host,
    planning::{Contract, Found, PlanningCheck, State, check},
};

#[derive(Serialize)]
struct CheckView<'a> {
    job: &'a JobName,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    warnings: &'a [String],
    #[serde(flatten)]
    check: &'a PlanningCheck,
}

pub(super) async fn run(host: &Host, job: &JobConfig, args: &ExtractArgs) -> Result<()> {
    let cancel: CancellationToken = program::stop_signal()?;
    let profile = job.read_profile()?;
    let contract = profile.is_some().then(Contract::get).transpose()?;
    let found = check_source(job, &host.files, Arc::clone(host.clock()), &cancel).await?;
    let reads = match &profile {
        Some(profile) => erp_tables(host, job, profile, &cancel).await?,
        None => Vec::new(),
    };
    let report = check(contract.as_ref(), &found.tables, &reads);
    if args.output.json {
        output::json(&CheckView { job: &job.name, profile: job.profile.as_deref(), warnings: &found.warnings, check: &report })?;
    } else {
        show(&report)?;
    }
    for warning in &found.warnings {
        output::say(&format!("warning: {warning}"));
    }
    if let Some(profile) = profile.filter(|profile| profile.tested.is_none()) {
        output::say(&format!(
            "the profile {} was written from public documents and not run here: compare what it extracts",
            profile.name
        ));
    }
    outcome(&job.name, &report, contract.is_some())
}

/// Asks the database for the tables that a profile reads.
async fn erp_tables(
    host: &Host,
    job: &JobConfig,
    profile: &Profile,
    cancel: &CancellationToken,
) -> Result<Vec<(ErpTable, TableCheck)>> {
    let asked = |(number, table): (usize, &ErpTable)| {
        let file = format!("reads-{number}.csv").parse();
        let file =
            file.map_err(|error| Failure::park(Code::Internal, "the name of a file that is never made").caused_by(error))?;
        Ok(TableConfig { schema: table.schema.clone(), file: Some(file), ..TableConfig::whole(table.name.clone()) })
    };
    let tables = profile.reads.iter().enumerate().map(asked).collect::<Result<Vec<_>>>()?;
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let job = JobConfig { tables, ..job.clone() };
    let checks = check_source(&job, &host.files, Arc::clone(host.clock()), cancel).await?;
    Ok(profile.reads.iter().cloned().zip(checks.tables).collect())
}

fn show(report: &PlanningCheck) -> Result<()> {
    let row = |table: &crate::planning::TableReport| {
        let there = table.columns.iter().filter(|column| column.found.is_some()).count();
        vec![table.table.to_string(), table.state.as_str().to_owned(), format!("{there} of {}", table.columns.len())]
    };
    output::table(&["table", "state", "columns"], report.tables.iter().map(row).collect(), "there are no tables")?;
    for table in &report.tables {
        if let Some(problem) = table.problem.as_ref().filter(|_| table.required || table.state != State::Absent) {
            output::line(&format!("{}: {problem}", table.table))?;
        }
        // Where the whole table is not there, its columns are no news.
        let is_news = !matches!(table.state, State::Absent | State::Unreadable);
        for column in table.columns.iter().filter(|column| is_news && column.state != Found::Fits) {
            if let Some(problem) = &column.problem {
                output::line(&format!("{}: column {}: {problem}", table.table, column.column))?;
            }
        }
    }
    for table in &report.erp_tables {
        if let Some(problem) = &table.problem {
            output::line(&format!("the ERP's table {}: {problem}", table.table))?;
        }
    }
    Ok(())
}

fn outcome(job: &JobName, report: &PlanningCheck, contract: bool) -> Result<()> {
    let (unmet, all) = (report.unmet(), report.tables.len());
    match (unmet, contract) {
        (0, _) => Ok(()),
        (_, true) => {
            let told = format!("job {job}: {unmet} of {all} tables are not what the planning data contract says");
            Err(Failure::park(Code::ContractUnmet, told))
        }
        (_, false) => Err(Failure::park(Code::ErpQuery, format!("job {job}: {unmet} of {all} tables cannot be read"))),
    }
}
