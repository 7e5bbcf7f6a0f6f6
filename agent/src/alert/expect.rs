//! Lets the relay know by when it must have each job, so that it raises the alarm where this whole host is silent.

use std::time::Duration;

use towpath_transfer::{
    api::{Expectation, Expectations},
    failure::Result,
};

use crate::{parts::Parts, schedule::expected_by};

use super::LOOK;

/// How often the relay is told, also where nothing has changed: it shows when an agent was last heard of.
pub const EXPECT_AGAIN: Duration = Duration::from_secs(3_600);
/// The longest pause after tries that failed.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Tells the relay at the beginning, when something has changed, and every [`EXPECT_AGAIN`]; for ever. That it cannot be told harms
/// nothing: it expects what it was told last.
pub(super) async fn run(parts: &Parts) {
    let (mut told, mut failures) = (None, 0u32);
    loop {
        let pause = match tell(parts, &mut told).await {
            Ok(()) => {
                failures = 0;
                LOOK
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                let pause = LOOK.saturating_mul(2u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE);
                tracing::warn!(
                    code = %failure.code(), failures, pause = pause.as_secs(), error = %failure.report(),
                    "the relay was not told what to expect; it is tried again"
                );
                pause
            }
        };
        parts.clock.sleep(pause).await;
    }
}

/// What the relay was told, and when.
type LastTold = Option<(Expectations, Duration)>;

async fn tell(parts: &Parts, told: &mut LastTold) -> Result<()> {
    let (new, now) = (expectations(parts).await?, parts.clock.monotonic());
    let is_known = told.as_ref().is_some_and(|(known, at)| *known == new && now.saturating_sub(*at) < EXPECT_AGAIN);
    if !is_known {
        parts.relay.expect(&new).await?;
        *told = Some((new, now));
    }
    Ok(())
}

/// By when the relay must have each job.
///
/// # Errors
/// As the journal reports.
pub async fn expectations(parts: &Parts) -> Result<Expectations> {
    let config = parts.config.now();
    let mut jobs = Vec::new();
    for job in &config.jobs {
        let expected_by = expected_by(parts, job, config.alert.late_after).await?;
        jobs.push(Expectation { job: job.name.clone(), expected_by });
    }
    Ok(Expectations { jobs })
}
