//! The figures of the relay, in Prometheus' text form.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry as Figures, TextEncoder};
use towpath_journal::{Count, JournalError, Lease, Observer, StageReport, StageResult};
use towpath_transfer::{Code, Failure, Stage, TenantName, failure::Result, state::Place};

use crate::spool::SpoolFigures;

/// Upper bounds of the histograms, in seconds.
const SECONDS: &[f64] = &[0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0];

/// The figures. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    figures: Figures,
    transfers: IntGaugeVec,
    stage_seconds: HistogramVec,
    failures: IntCounterVec,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    connections: IntGaugeVec,
    authentication_failures: IntCounterVec,
    spool_bytes: IntGauge,
    tenant_bytes: IntGaugeVec,
    tenant_quota: IntGaugeVec,
    spool_refusals: IntCounterVec,
    downlinks_overdue: IntGaugeVec,
    runs_late: IntGaugeVec,
}

fn failed(e: prometheus::Error) -> Failure {
    Failure::park(Code::Internal, "prepare the metrics").caused_by(e)
}

impl Metrics {
    /// Figures that are all zero.
    ///
    /// # Errors
    /// [`Code::Internal`] where a name is not one that Prometheus accepts.
    pub fn new() -> Result<Self> {
        let figures = Figures::new();
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).map_err(failed)?;
            figures.register(Box::new(gauge.clone())).map_err(failed)?;
            Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).map_err(failed)?;
            figures.register(Box::new(counter.clone())).map_err(failed)?;
            Ok(counter)
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| -> Result<HistogramVec> {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let histogram = HistogramVec::new(options, labels).map_err(failed)?;
            figures.register(Box::new(histogram.clone())).map_err(failed)?;
            Ok(histogram)
        };
        let transfers = gauges("towpath_relay_transfers", "Transfers by state and stage.", &["state", "stage", "parked"])?;
        let stage_seconds = seconds("towpath_relay_stage_seconds", "How long steps take.", &["stage", "result"])?;
        let failures = counters("towpath_relay_failures_total", "Failed steps by code.", &["stage", "code"])?;
        let requests = counters("towpath_relay_requests_total", "Calls of the web service.", &["path", "status", "code"])?;
        let request_seconds = seconds("towpath_relay_request_seconds", "How long calls take.", &["path"])?;
        let connections = gauges("towpath_relay_connections", "Connections being served.", &["kind"])?;
        let authentication_failures =
            counters("towpath_relay_authentication_failures_total", "Refused logins, tokens and enrolments.", &["kind", "code"])?;
        let spool_bytes = IntGauge::new("towpath_relay_spool_bytes", "Bytes in the spool.").map_err(failed)?;
        figures.register(Box::new(spool_bytes.clone())).map_err(failed)?;
        let tenant_bytes = gauges("towpath_relay_tenant_spool_bytes", "Bytes of a tenant in the spool.", &["tenant"])?;
        let quota = "Bytes that a tenant may have in the spool.";
        let tenant_quota = gauges("towpath_relay_tenant_quota_bytes", quota, &["tenant"])?;
        let refusals = "Refused room in the spool, by what is used up: quota, spool, reserve (of the disk).";
        let spool_refusals = counters("towpath_relay_spool_refusals_total", refusals, &["reason"])?;
        let overdue = "Return files that have waited for their agent for longer than the alarm says, by tenant.";
        let downlinks_overdue = gauges("towpath_downlinks_overdue", overdue, &["tenant"])?;
        let late = "Runs that an agent has promised and that are not here, by tenant.";
        let runs_late = gauges("towpath_runs_late", late, &["tenant"])?;
        let inner = Inner {
            figures,
            transfers,
            stage_seconds,
            failures,
            requests,
            request_seconds,
            connections,
            authentication_failures,
            spool_bytes,
            tenant_bytes,
            tenant_quota,
            spool_refusals,
            downlinks_overdue,
            runs_late,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A login, token or enrolment was refused.
    pub fn authentication_failed(&self, kind: &str, code: Code) {
        self.inner.authentication_failures.with_label_values(&[kind, code.as_str()]).inc();
    }

    /// A call was answered.
    pub fn request(&self, path: &str, status: u16, code: Option<Code>, took: Duration) {
        let code = code.map_or("", Code::as_str);
        self.inner.requests.with_label_values(&[path, &status.to_string(), code]).inc();
        self.inner.request_seconds.with_label_values(&[path]).observe(took.as_secs_f64());
    }

    /// Counts a connection of a kind (`ssh`, `https`, `tls`; `poll` for a long poll) for as long as the answer lives.
    #[must_use]
    pub fn connection(&self, kind: &str) -> Counted {
        let gauge = self.inner.connections.with_label_values(&[kind]);
        gauge.inc();
        Counted(gauge)
    }

    /// How many transfers of each tenant are overdue; of every other tenant none is.
    pub fn downlinks_overdue(&self, tenants: &BTreeMap<TenantName, u64>) {
        set_all(&self.inner.downlinks_overdue, tenants.iter().map(|(name, count)| (name, *count)));
    }

    /// How many runs of each tenant are late; of every other tenant none is.
    pub fn runs_late(&self, tenants: &BTreeMap<TenantName, u64>) {
        set_all(&self.inner.runs_late, tenants.iter().map(|(name, count)| (name, *count)));
    }

    /// Everything, with the present counts of transfers and the spool.
    ///
    /// # Errors
    /// [`Code::Internal`] where the text cannot be written.
    pub fn text(&self, counts: &[Count], spool: &SpoolFigures) -> Result<String> {
        self.inner.transfers.reset();
        for count in counts {
            let stage = count.stage.map_or("", Stage::as_str);
            let labels = [count.state.as_str(), stage, if count.parked { "true" } else { "false" }];
            self.inner.transfers.with_label_values(&labels).set(i64::try_from(count.transfers).unwrap_or(i64::MAX));
        }
        self.inner.spool_bytes.set(i64::try_from(spool.bytes).unwrap_or(i64::MAX));
        let each = |which: fn(&(u64, u64)) -> u64| spool.tenants.iter().map(move |(name, figures)| (name, which(figures)));
        set_all(&self.inner.tenant_bytes, each(|figures| figures.0));
        set_all(&self.inner.tenant_quota, each(|figures| figures.1));
        self.inner.spool_refusals.reset();
        for (reason, times) in &spool.refusals {
            self.inner.spool_refusals.with_label_values(&[reason]).inc_by(*times);
        }
        TextEncoder::new().encode_to_string(&self.inner.figures.gather()).map_err(failed)
    }
}

/// A figure of each tenant; that of every other tenant is gone.
fn set_all<'a>(gauges: &IntGaugeVec, tenants: impl Iterator<Item = (&'a TenantName, u64)>) {
    gauges.reset();
    for (tenant, count) in tenants {
        gauges.with_label_values(&[tenant.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Observer for Metrics {
    fn stage_started(&self, _: Place, stage: Stage, lease: &Lease) {
        let key = lease.key();
        tracing::debug!(tenant = %key.tenant, agent = %key.agent, transfer = %key.id, %stage, attempt = lease.attempts(), "begins");
    }

    fn stage_finished(&self, report: &StageReport<'_>) {
        let (stage, key, result) = (report.stage, report.key, &report.result);
        let labels = [stage.as_str(), result.as_str()];
        self.inner.stage_seconds.with_label_values(&labels).observe(report.duration.as_secs_f64());
        let seconds = report.duration.as_secs_f64();
        match result {
            StageResult::Appended { record, .. } => {
                let state = record.state.word();
                tracing::info!(tenant = %key.tenant, agent = %key.agent, transfer = %key.id, %stage, state, seconds, "done");
            }
            StageResult::Retrying { failure, pause } => {
                self.failed(stage, failure.code());
                let (code, error, pause) = (failure.code(), failure.report(), pause.as_secs_f64());
                tracing::warn!(tenant = %key.tenant, agent = %key.agent, transfer = %key.id, %stage, %code, error, pause, "is tried again");
            }
            StageResult::Parked(failure) => {
                self.failed(stage, failure.code());
                let (code, error) = (failure.code(), failure.report());
                tracing::error!(tenant = %key.tenant, agent = %key.agent, transfer = %key.id, %stage, %code, error, "waits for a person");
            }
            StageResult::Waiting(_) | StageResult::Overtaken(_) | StageResult::Interrupted => {
                let result = result.as_str();
                tracing::debug!(tenant = %key.tenant, agent = %key.agent, transfer = %key.id, %stage, result, "ends");
            }
        }
    }

    fn journal_failed(&self, _: Place, stage: Stage, error: &JournalError) {
        self.failed(stage, error.code());
        tracing::error!(%stage, code = %error.code(), %error, "the journal failed");
    }
}

impl Metrics {
    fn failed(&self, stage: Stage, code: Code) {
        self.inner.failures.with_label_values(&[stage.as_str(), code.as_str()]).inc();
    }
}
