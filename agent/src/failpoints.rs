//! Where a test kills the program: `TOWPATH_FAILPOINT=<place>:<stage>:<point>[:n]`. Only with the feature `failpoints`.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use towpath_journal::{FailPoints, NoFailPoints, Point};
use towpath_transfer::{Code, Failure, Stage, TransferKey, failure::Result, state::Place};

const VARIABLE: &str = "TOWPATH_FAILPOINT";
const PLACE: &str = "agent";

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
    match env::var(VARIABLE) {
        Ok(text) => Ok(match parse(&text)? {
            Some(kill) => Arc::new(kill),
            None => Arc::new(NoFailPoints),
        }),
        Err(_) => Ok(Arc::new(NoFailPoints)),
    }
}

fn parse(text: &str) -> Result<Option<Kill>> {
    let wrong = || Failure::park(Code::ConfigInvalid, format!("{VARIABLE}={text:?} is not <place>:<stage>:<point>[:n]"));
    let mut parts = text.split(':');
    let (Some(place), Some(stage), Some(point)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
    let count = parts.next().map_or(Ok(1), str::parse).map_err(|_| wrong())?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    if place != PLACE {
        return Ok(None);
    }
    let stage = Stage::ALL.iter().find(|known| known.as_str() == stage).copied().ok_or_else(wrong)?;
    let point = Point::ALL.iter().find(|known| known.as_str() == point).copied().ok_or_else(wrong)?;
    Ok(Some(Kill { stage, point, left: AtomicU32::new(count) }))
}

#[async_trait]
impl FailPoints for Kill {
    async fn hit(&self, _: Place, stage: Stage, point: Point, _: &TransferKey) {
        if stage == self.stage && point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill();
            // Where the system refuses, the test sees that the process lives and does nothing.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn kill() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(not(unix))]
fn kill() {
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_of_this_program_are_taken() {
        let kill = parse("agent:push:after-effect:2").unwrap().unwrap();
        assert_eq!((kill.stage, kill.point, kill.left.into_inner()), (Stage::Push, Point::AfterEffect, 2));
        assert!(parse("relay:accept:before-effect").unwrap().is_none());
        for bad in
            ["agent", "agent:push", "agent:pull:after-effect", "agent:push:later", "agent:push:after-effect:x", "a:b:c:1:2"]
        {
            assert_eq!(parse(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
