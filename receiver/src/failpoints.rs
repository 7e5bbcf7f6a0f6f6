//! Stops the program dead where a test wants it; in the test builds that ask for it (`--features failpoints`) and nowhere else.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use towpath_journal::{FailPoints, Point};
use towpath_transfer::{Code, Failure, Stage, TransferKey, state::Place};

/// The variable that says where: `<place>:<stage>:<before-effect|after-effect|after-journal>[:n]`.
pub const VARIABLE: &str = "TOWPATH_FAILPOINT";

/// Kills this process with SIGKILL at the nth hit of one point.
#[derive(Debug)]
pub struct KillAt {
    stage: Stage,
    point: Point,
    hits_left: AtomicU32,
}

impl KillAt {
    /// Reads the variable's value; `None` where it is for another program.
    ///
    /// # Errors
    /// `config-invalid` for anything that is not of the form.
    pub fn parse(text: &str) -> Result<Option<Self>, Failure> {
        let invalid = || Failure::park(Code::ConfigInvalid, format!("{VARIABLE}={text} is not <place>:<stage>:<point>[:n]"));
        let mut fields = text.split(':');
        let (place, stage, point) = (fields.next(), fields.next(), fields.next());
        let nth = fields.next().map_or(Ok(1), str::parse::<u32>).map_err(|_| invalid())?;
        if fields.next().is_some() || nth == 0 || !matches!(place, Some("agent" | "relay" | "receiver")) {
            return Err(invalid());
        }
        let stage = Stage::ALL.iter().find(|s| Some(s.as_str()) == stage).ok_or_else(invalid)?;
        let point = Point::ALL.iter().find(|p| Some(p.as_str()) == point).ok_or_else(invalid)?;
        let ours = place == Some("receiver");
        Ok(ours.then(|| Self { stage: *stage, point: *point, hits_left: AtomicU32::new(nth) }))
    }
}

#[async_trait]
impl FailPoints for KillAt {
    async fn hit(&self, place: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (place, stage, point) != (Place::Receiver, self.stage, self.point) {
            return;
        }
        if self.hits_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Where there is no such signal the process ends all the same, without any cleanup.
            #[cfg(unix)]
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_has_one_form() {
        let kill = KillAt::parse("receiver:import:after-effect:3").unwrap().unwrap();
        assert_eq!((kill.stage, kill.point, kill.hits_left.into_inner()), (Stage::Import, Point::AfterEffect, 3));
        assert!(KillAt::parse("relay:accept:before-effect").unwrap().is_none());
        for bad in
            ["", "receiver", "receiver:import", "receiver:import:now", "receiver:import:after-effect:0", "x:import:after-effect"]
        {
            assert!(KillAt::parse(bad).is_err(), "{bad}");
        }
    }
}
