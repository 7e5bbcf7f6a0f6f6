//! `status`: how the agent and its jobs stand.

use std::num::NonZeroU64;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use towpath_alert::{OpenAlert, open_alerts};
use towpath_host::StateLock;
use towpath_journal::{Filter, MAX_LIST, TransferRecord};
use towpath_transfer::{Direction, JobName, failure::Result};

use super::{args::OutputArgs, enrol::ReceiverView, output, quietly, tables, times};
use crate::{
    bandwidth,
    config::{BandwidthLimit, JobConfig, UpdateConfig, UpdateMode},
    downlink::poll,
    host::{Host, OpenHost},
    parts::Parts,
    pause::Pause,
    routes::{KnownWay, KnownWays},
    schedule::next_begin,
    trust::pinned_receivers,
    update::Standing,
    uplink::{plan::open_transfer, replan::newest},
    view::{self, TableView, TransferView, what_next},
};

#[derive(Serialize)]
pub(super) struct StatusView {
    enrolled: bool,
    relay_url: Option<String>,
    tenant: Option<String>,
    name: Option<String>,
    fingerprint: Option<String>,
    running: bool,
    pause: Option<Pause>,
    bandwidth: BandwidthView,
    receivers: Vec<ReceiverView>,
    ways: WaysView,
    jobs: Vec<JobView>,
    downlink: DownlinkView,
    parked: Vec<TransferView>,
    /// What was raised and is not over.
    alerts: Vec<OpenAlert>,
    update: UpdateView,
}

/// How updates stand.
#[derive(Serialize)]
struct UpdateView {
    mode: UpdateMode,
    #[serde(flatten)]
    standing: Standing,
}

impl UpdateView {
    fn of(config: &UpdateConfig) -> Self {
        Self { mode: config.mode, standing: Standing::look() }
    }

    /// What is worth a line: nothing where updates are off and none was ever tried.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.standing.report.last.as_ref().map(ToString::to_string).into_iter().collect();
        if let Some(waits) = &self.standing.report.postponed {
            let version = waits.to.map(|version| format!(" to {version}")).unwrap_or_default();
            let how = if waits.refused { "was refused at" } else { "waits since" };
            lines.push(format!("the update{version} {how} {}: {}", waits.at, waits.why));
        }
        if self.mode != UpdateMode::Off {
            lines
                .insert(0, format!("version {}; see what is approved with: towpath-agent update check", self.standing.version()));
        }
        lines
    }
}

/// The limit of all files to and from the relay.
#[derive(Default, Serialize)]
struct BandwidthView {
    /// `null` for no limit.
    max_bytes_per_second: Option<NonZeroU64>,
    /// Until when that counts; `null` where it does not change.
    until: Option<Timestamp>,
}

impl From<BandwidthLimit> for BandwidthView {
    fn from(limit: BandwidthLimit) -> Self {
        Self { max_bytes_per_second: limit.bytes_per_second, until: limit.until }
    }
}

/// The way in use of each connection to the relay, once there was one.
#[derive(Default, Serialize)]
struct WaysView {
    ssh: Option<KnownWay>,
    https: Option<KnownWay>,
}

impl From<KnownWays> for WaysView {
    fn from(known: KnownWays) -> Self {
        Self { ssh: known.ssh, https: known.https }
    }
}

#[derive(Default, Serialize)]
struct DownlinkView {
    deliveries: usize,
    open: Vec<TransferView>,
    last_delivered: Option<TransferView>,
}

#[derive(Serialize)]
struct JobView {
    job: String,
    schedule: Option<String>,
    next_run: Option<Timestamp>,
    /// The zone by whose clock people are told of the next run.
    #[serde(skip)]
    zone: TimeZone,
    open: Option<TransferView>,
    last: Option<TransferView>,
    last_imported: Option<TransferView>,
    /// The tables of the newest transfer that was read.
    tables: Vec<TableView>,
    /// What an administrator should know of the source it was read from.
    warnings: Vec<String>,
    /// The transfer of `tables` and `warnings`.
    tables_of: Option<String>,
}

pub(super) async fn status(host: &Host, args: &OutputArgs) -> Result<()> {
    if host.enrolment()?.is_none() {
        if args.json {
            return output::json(&StatusView {
                enrolled: false,
                relay_url: None,
                tenant: None,
                name: None,
                fingerprint: None,
                running: false,
                pause: Pause::read(&*host.files, &host.layout, host.clock().now()),
                bandwidth: BandwidthView::default(),
                receivers: Vec::new(),
                ways: WaysView::default(),
                jobs: Vec::new(),
                downlink: DownlinkView::default(),
                parked: Vec::new(),
                alerts: Vec::new(),
                update: UpdateView::of(&host.settings().update),
            });
        }
        return output::hint("not enrolled: ask the relay's operator for a code, then run: towpath-agent enrol CODE");
    }
    quietly(host, async |open| {
        let view = collect(open).await?;
        if args.json { output::json(&view) } else { tell(&view) }
    })
    .await
}

pub(super) async fn collect(open: &OpenHost) -> Result<StatusView> {
    let parts = &open.parts;
    let mut jobs = Vec::new();
    for job in &parts.config.now().jobs {
        jobs.push(of_job(parts, job).await?);
    }
    let waiting = Filter { parked: Some(true), ended: Some(false), ..Filter::default() };
    let parked = parts.journal.list(&waiting, MAX_LIST, None).await?;
    let running = StateLock::try_take(&parts.layout.lock())?.is_none();
    let receivers = pinned_receivers(&parts.trust.signers()?, &parts.agent);
    Ok(StatusView {
        enrolled: true,
        relay_url: Some(open.enrolment.relay_url.clone()),
        tenant: Some(parts.tenant.to_string()),
        name: Some(parts.agent.to_string()),
        fingerprint: Some(parts.identity.now().fingerprint().to_string()),
        running,
        pause: Pause::read(&*parts.files, &parts.layout, parts.clock.now()),
        bandwidth: bandwidth::limit(&parts.config, &*parts.clock).into(),
        receivers: receivers.iter().map(Into::into).collect(),
        ways: KnownWays::read(&*parts.files, &parts.layout.ways()).into(),
        jobs,
        downlink: downlink(parts).await?,
        parked: parked.iter().map(Into::into).collect(),
        alerts: open_alerts(&*parts.files, &parts.layout.alerts())?,
        update: UpdateView::of(&parts.config.now().update),
    })
}

async fn of_job(parts: &Parts, job: &JobConfig) -> Result<JobView> {
    let imported = Filter { state: Some("imported".into()), ..of(parts, Some(&job.name)) };
    let imported = parts.journal.list(&imported, 1, None).await?;
    let newest = newest(parts, &job.name).await?;
    let (tables, warnings, tables_of) = last_read(parts, newest.as_ref(), imported.first())?;
    let next_run = next_begin(parts, job, parts.clock.now())?.map(|run| run.begins);
    Ok(JobView {
        job: job.name.to_string(),
        schedule: job.schedule.as_ref().map(ToString::to_string),
        next_run,
        zone: job.zone(),
        open: open_transfer(parts, &job.name).await?.as_ref().map(Into::into),
        last: newest.as_ref().map(Into::into),
        last_imported: imported.first().map(Into::into),
        tables,
        warnings,
        tables_of,
    })
}

/// What the newest transfer of a job has read; where it has not come so far, the one that was imported last.
fn last_read(
    parts: &Parts,
    newest: Option<&TransferRecord>,
    imported: Option<&TransferRecord>,
) -> Result<(Vec<TableView>, Vec<String>, Option<String>)> {
    for record in [newest, imported].into_iter().flatten() {
        let tables = view::tables(parts, record)?;
        if !tables.is_empty() {
            return Ok((tables, view::warnings(parts, record)?, Some(record.key.id.to_string())));
        }
    }
    Ok((Vec::new(), Vec::new(), None))
}

async fn downlink(parts: &Parts) -> Result<DownlinkView> {
    let delivered = Filter { state: Some("delivered".into()), direction: Some(Direction::Downlink), ..Filter::default() };
    let delivered = parts.journal.list(&delivered, 1, None).await?;
    Ok(DownlinkView {
        deliveries: parts.config.now().deliveries.len(),
        open: poll::open_downlinks(parts).await?.iter().map(Into::into).collect(),
        last_delivered: delivered.first().map(Into::into),
    })
}

pub(super) fn of(parts: &Parts, job: Option<&JobName>) -> Filter {
    Filter {
        tenant: Some(parts.tenant.clone()),
        agent: Some(parts.agent.clone()),
        direction: job.map(|_| Direction::Uplink),
        job: job.cloned(),
        ..Filter::default()
    }
}

/// The agent as a whole, a line each.
fn head(view: &StatusView) -> Vec<String> {
    let told = |text: &Option<String>| text.clone().unwrap_or_default();
    let running = if view.running {
        "the agent is running"
    } else {
        "the agent is not running; start it with: towpath-agent service start, or in a terminal: towpath-agent run"
    };
    let mut lines = vec![
        format!("agent {} of tenant {} with {}", told(&view.name), told(&view.tenant), told(&view.relay_url)),
        format!("key {}", told(&view.fingerprint)),
        running.to_owned(),
    ];
    lines.extend(view.pause.as_ref().map(|pause| format!("{pause}; end it with: towpath-agent resume")));
    lines.extend(bandwidth_line(&view.bandwidth));
    lines.extend(view.update.lines());
    lines
}

/// A row for each job.
fn rows(view: &StatusView) -> Vec<Vec<String>> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |job: &JobView| {
        let now = job.open.as_ref().map(|open| match &open.failure {
            Some(failure) => format!("{} (trouble: {})", open.state, failure.code),
            None => open.state.to_owned(),
        });
        vec![
            job.job.clone(),
            or_none(now),
            or_none(job.last_imported.as_ref().map(|last| last.changed.strftime("%Y-%m-%d %H:%M UTC").to_string())),
            or_none(job.next_run.map(|next| next.to_zoned(job.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string())),
        ]
    };
    view.jobs.iter().map(row).collect()
}

fn tell(view: &StatusView) -> Result<()> {
    output::hint(&head(view).join("\n"))?;
    for alert in &view.alerts {
        let told = if alert.told { "" } else { " (not everybody is told yet)" };
        output::line(&format!("ALERT since {}: {} [{}]{told}", alert.since, alert.summary, alert.code))?;
    }
    tell_ways(&view.ways)?;
    if view.receivers.is_empty() {
        output::hint("no receiver is approved: see towpath-agent receiver list")?;
    }
    output::table(&["job", "now", "last imported", "next run"], rows(view), "no job is configured")?;
    for job in &view.jobs {
        tables::tell_source(&format!("{}:", job.job), None, &job.warnings)?;
        tables::tell_remarkable(&job.job, &job.tables, job.tables_of.as_deref().unwrap_or_default())?;
    }
    tell_downlink(&view.downlink)?;
    for parked in &view.parked {
        let why = parked.failure.as_ref().map(|failure| format!(": {} [{}]", failure.report, failure.code)).unwrap_or_default();
        let next = what_next(parked.failure.as_ref().map(|failure| failure.code), &parked.transfer);
        output::hint(&format!("transfer {} waits for you{why}; {next}", parked.transfer))?;
    }
    Ok(())
}

/// The limit, where there is one or will be.
fn bandwidth_line(view: &BandwidthView) -> Option<String> {
    let until = view.until.map(|until| format!(" until {}", times::told(until, &TimeZone::system()))).unwrap_or_default();
    match view.max_bytes_per_second {
        Some(limit) => Some(format!("at most {} bytes a second of files{until}", output::grouped(limit.get()))),
        None if view.until.is_some() => Some(format!("files without a limit of bytes a second{until}")),
        None => None,
    }
}

/// The way of each connection, and which better ones are blocked.
fn tell_ways(ways: &WaysView) -> Result<()> {
    for (what, known) in [("SFTP", &ways.ssh), ("the web service", &ways.https)] {
        let Some(known) = known else { continue };
        let proxy = known.proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        output::line(&format!("{what} goes by {}{proxy}", known.way))?;
        for blocked in &known.blocked {
            let at = known.checked.strftime("%Y-%m-%d %H:%M UTC");
            output::line(&format!("  {} was blocked at {at}: {}", blocked.way, blocked.why))?;
        }
    }
    Ok(())
}

fn tell_downlink(view: &DownlinkView) -> Result<()> {
    if view.deliveries == 0 && view.open.is_empty() && view.last_delivered.is_none() {
        return Ok(());
    }
    let last = view.last_delivered.as_ref().map(|last| last.changed.strftime("%Y-%m-%d %H:%M UTC").to_string());
    let last = last.unwrap_or_else(|| "never".to_owned());
    output::line(&format!("return files: {} on the way, last delivered {last}", view.open.len()))?;
    for open in view.open.iter().filter(|open| !open.parked) {
        let Some(failure) = &open.failure else { continue };
        output::line(&format!(
            "transfer {} is {} and tried again: {} [{}]",
            open.transfer, open.state, failure.report, failure.code
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use towpath_transfer::clock::ManualClock;

    use super::*;
    use crate::{config::Config, host::tests::Bench, parts::NoWatcher};

    const CONFIG: &str = "[[bandwidth.window]]\nduring = \"07:00-18:00\"\nmax_bytes_per_second = 250_000\n\
                          [[job]]\nname = \"main\"\nschedule = \"02:00\"\ntime_zone = \"Europe/Berlin\"\n[job.source]\n\
                          kind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\n";

    /// A time of the day by the clock of this system, whose windows are meant.
    fn today(time: &str) -> Timestamp {
        let time: jiff::civil::DateTime = format!("2026-07-01T{time}").parse().unwrap();
        TimeZone::system().to_timestamp(time).unwrap()
    }

    async fn collected(bench: &Bench) -> StatusView {
        let open = bench.host.open(Arc::new(NoWatcher)).await.unwrap();
        let view = collect(&open).await.unwrap();
        open.journal.close().await;
        view
    }

    #[tokio::test]
    async fn pause_and_bandwidth_are_told_with_their_ends() {
        let clock = Arc::new(ManualClock::new(today("10:00")));
        let bench = Bench::enrolled(CONFIG, clock.clone());
        let view = collected(&bench).await;
        assert!(view.enrolled && !view.running && view.pause.is_none());
        let told = head(&view);
        let (zone, until) = (TimeZone::system(), today("18:00"));
        assert!(told[2].starts_with("the agent is not running; start it with: towpath-agent service start"), "{told:#?}");
        assert_eq!(told[3..], [format!("at most 250,000 bytes a second of files until {}", times::told(until, &zone))]);
        assert!(rows(&view)[0][3].ends_with(" 02:00 CEST"), "{:?}", rows(&view));

        let (since, end) = (today("10:00"), today("20:00"));
        let pause = Pause::new(since, Some(end), "anna", Some("ERP update"));
        pause.begin(&*bench.host.files, &bench.host.layout).unwrap();
        clock.set_wall(today("19:00"));
        let view = collected(&bench).await;
        let told = head(&view);
        let tomorrow = today("07:00") + jiff::SignedDuration::from_hours(24);
        assert_eq!(
            told[3..],
            [
                format!("{pause}; end it with: towpath-agent resume"),
                format!("files without a limit of bytes a second until {}", times::told(tomorrow, &zone)),
            ]
        );
        assert!(told[3].contains(" since 2026-07-01 10:00 ") && told[3].contains(" until 2026-07-01 20:00 "), "{told:#?}");
        assert!(told[3].contains("by anna") && told[3].contains("(ERP update)"), "{told:#?}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(
            json["pause"],
            serde_json::json!({ "since": since.to_string(), "until": end.to_string(), "by": "anna", "reason": "ERP update" })
        );
        assert_eq!(json["bandwidth"], serde_json::json!({ "max_bytes_per_second": null, "until": tomorrow.to_string() }));
        clock.set_wall(end);
        assert!(collected(&bench).await.pause.is_none(), "it is over by itself");
    }

    #[tokio::test]
    async fn a_limit_that_never_changes_has_no_end_and_none_is_not_told() {
        let clock = Arc::new(ManualClock::new(today("10:00")));
        let bench = Bench::enrolled("[bandwidth]\nmax_bytes_per_second = 9\n", clock);
        let view = collected(&bench).await;
        assert_eq!(head(&view)[3..], ["at most 9 bytes a second of files"]);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["bandwidth"], serde_json::json!({ "max_bytes_per_second": 9, "until": null }));
        let limit =
            Config::parse("", std::path::Path::new("agent.toml")).unwrap().bandwidth.limit(today("10:00"), &TimeZone::UTC);
        assert_eq!(bandwidth_line(&limit.into()), None);
    }
}
