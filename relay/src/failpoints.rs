//! Where a test kills the program: `TOWPATH_FAILPOINT=<place>:<stage>:<point>[:n]`. Only with the feature `failpoints`.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use rustix::process::{Signal, getpid, kill_process};
use towpath_journal::{FailPoints, NoFailPoints, Point};
use towpath_transfer::{Code, Failure, Stage, TransferKey, failure::Result, state::Place};

const VARIABLE: &str = "TOWPATH_FAILPOINT";

/// Kills the process, without any cleaning up, at the nth passing of one point.
#[derive(Debug)]
struct Kill {
    stage: Stage,
    point: Point,
    left: AtomicU32,
}

/// What the environment asks for; nothing where it names another program.
///
/// # Errors
/// [`Code::ConfigInvalid`] where it cannot be understood.
pub fn from_environment() -> Result<Arc<dyn FailPoints>> {
    let Ok(text) = env::var(VARIABLE) else { return Ok(Arc::new(NoFailPoints)) };
    let wrong = || Failure::park(Code::ConfigInvalid, format!("{VARIABLE}={text:?} is not <place>:<stage>:<point>[:n]"));
    let parts: Vec<&str> = text.split(':').collect();
    let (place, stage, point, count) = match parts.as_slice() {
        [place, stage, point] => (*place, *stage, *point, 1),
        [place, stage, point, count] => (*place, *stage, *point, count.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    if place != "relay" {
        return Ok(Arc::new(NoFailPoints));
    }
    let stage = Stage::ALL.iter().find(|known| known.as_str() == stage).copied().ok_or_else(wrong)?;
    let point = Point::ALL.iter().find(|known| known.as_str() == point).copied().ok_or_else(wrong)?;
    Ok(Arc::new(Kill { stage, point, left: AtomicU32::new(count) }))
}

#[async_trait]
impl FailPoints for Kill {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if stage == self.stage && point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nothing after this line runs; where the system refuses, the test sees that the process lives.
            let _ = kill_process(getpid(), Signal::KILL);
            std::future::pending::<()>().await;
        }
    }
}
