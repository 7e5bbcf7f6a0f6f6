//! Progress in front of a person: bars on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    sync::{Mutex, OnceLock, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use towpath_journal::{Observer, StageReport, StageResult};
use towpath_transfer::{FileName, TransferId};

use super::output::{grouped, say};
use crate::parts::{Progress, Watcher};

/// Shows what the stages do.
pub(super) struct Console {
    bars: Option<Bars>,
    sent: Mutex<BTreeSet<(TransferId, FileName)>>,
}

struct Bars {
    all: MultiProgress,
    extract: ProgressBar,
    /// Of the files on their way; shown from the first one on.
    push: OnceLock<ProgressBar>,
}

impl Console {
    pub(super) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(|| Bars::new(MultiProgress::new()));
        Self { bars, sent: Mutex::default() }
    }

    /// Takes the bars away, so that the result stands alone.
    pub(super) fn finish(&self) {
        if let Some(bars) = &self.bars {
            bars.extract.finish_and_clear();
            if let Some(push) = bars.push.get() {
                push.finish_and_clear();
            }
        }
    }

    fn tell(&self, text: &str) {
        match &self.bars {
            // Where the terminal is gone there is nobody to tell.
            Some(bars) => drop(bars.all.println(text)),
            None => say(text),
        }
    }

    /// A file is on its way, or there.
    fn moved(&self, stage: &'static str, transfer: TransferId, name: &FileName, (done, total): (u64, u64)) {
        if let Some(bars) = &self.bars {
            let push = bars.push();
            push.set_prefix(stage);
            push.set_length(total);
            push.set_position(done);
            push.set_message(name.to_string());
        }
        if done == total && self.is_news(transfer, name) {
            self.tell(&format!("{stage:<8} {name}: {} bytes", grouped(total)));
        }
    }

    /// Whether a file is whole at its end for the first time.
    fn is_news(&self, transfer: TransferId, name: &FileName) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.insert((transfer, name.clone()))
    }
}

impl Bars {
    fn new(all: MultiProgress) -> Self {
        let extract = all.add(ProgressBar::new_spinner());
        // A template that indicatif does not accept would only cost looks.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:>8} {wide_msg}") {
            extract.set_style(style);
        }
        extract.set_prefix("extract");
        Self { all, extract, push: OnceLock::new() }
    }

    fn push(&self) -> &ProgressBar {
        self.push.get_or_init(|| {
            let push = self.all.add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template("  {prefix:>8} [{bar:24}] {bytes:>10}/{total_bytes:<10} {wide_msg}") {
                push.set_style(style.progress_chars("=> "));
            }
            push
        })
    }
}

impl Watcher for Console {
    fn progress(&self, transfer: TransferId, progress: &Progress) {
        match progress {
            Progress::TableStarted { table } => {
                if let Some(bars) = &self.bars {
                    bars.extract.set_message(table.to_string());
                    bars.extract.tick();
                }
            }
            Progress::Rows { table, rows } => {
                if let Some(bars) = &self.bars {
                    bars.extract.set_message(format!("{table}  {} rows", grouped(*rows)));
                    bars.extract.tick();
                }
            }
            Progress::TableFinished { table, rows, unchanged } => {
                let told = if *unchanged { ", unchanged: nothing to send" } else { "" };
                self.tell(&format!("extract  {table}: {} rows{told}", grouped(*rows)));
            }
            Progress::Sent { name, done, total } => self.moved("push", transfer, name, (*done, *total)),
            Progress::Received { name, done, total } => self.moved("pull", transfer, name, (*done, *total)),
        }
    }
}

impl Observer for Console {
    fn stage_finished(&self, report: &StageReport<'_>) {
        let (transfer, stage) = (report.key.id, report.stage.as_str());
        match &report.result {
            StageResult::Appended { record, .. } => {
                let seconds = report.duration.as_secs_f64();
                self.tell(&format!("{stage:<8} transfer {transfer} is {} ({seconds:.1} s)", record.state.word()));
            }
            StageResult::Retrying { failure, pause } => {
                let pause = pause.as_secs_f64();
                self.tell(&format!("{stage:<8} failed, tried again in {pause:.1} s: {}", failure.report()));
            }
            // Parked transfers are the result and said there; the others are nothing that a person has to know.
            StageResult::Parked(_) | StageResult::Waiting(_) | StageResult::Overtaken(_) | StageResult::Interrupted => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;
    use towpath_transfer::clock::{ManualClock, SeededEntropy};

    use super::*;

    #[test]
    fn the_bar_of_files_is_there_from_the_first_file_on() {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let console = Console { bars: Some(Bars::new(all)), sent: Mutex::default() };
        let transfer = TransferId::new(&ManualClock::new(jiff::Timestamp::UNIX_EPOCH), &SeededEntropy::new(1));
        let bar = || console.bars.as_ref().and_then(|bars| bars.push.get()).map(ProgressBar::prefix);
        console.progress(transfer, &Progress::TableStarted { table: "items".parse().unwrap() });
        assert_eq!(bar(), None, "a dry run sends no file");
        console.progress(transfer, &Progress::Sent { name: "items.csv.bz2".parse().unwrap(), done: 1, total: 2 });
        assert_eq!(bar().as_deref(), Some("push"));
        console.finish();
    }
}
