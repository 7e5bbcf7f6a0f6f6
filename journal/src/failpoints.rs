//! Stops a program dead where a test wants it; in the test builds that ask for it (`--features failpoints`) and nowhere else.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use towpath_transfer::{Code, Failure, Stage, TransferKey, state::Place};

use crate::{FailPoints, NoFailPoints, Point};

/// The variable that says where: `<place>:<stage>:<before-effect|after-effect|after-journal>[:n]`.
pub const VARIABLE: &str = "TOWPATH_FAILPOINT";

/// Kills this process with SIGKILL at the nth hit of one point.
#[derive(Debug)]
pub struct KillAt {
    place: Place,
    stage: Stage,
    point: Point,
    hits_left: AtomicU32,
}

impl KillAt {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// `config-invalid` for anything that is not of the form.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let invalid = || Failure::park(Code::ConfigInvalid, format!("{VARIABLE}={text} is not <place>:<stage>:<point>[:n]"));
        let mut fields = text.split(':');
        let (place, stage, point) = (fields.next(), fields.next(), fields.next());
        let nth = fields.next().map_or(Ok(1), str::parse::<u32>).map_err(|_| invalid())?;
        let place = match place {
            Some("agent") => Place::Agent,
            Some("relay") => Place::Relay,
            Some("receiver") => Place::Receiver,
            _ => return Err(invalid()),
        };
        if fields.next().is_some() || nth == 0 {
            return Err(invalid());
        }
        let stage = Stage::ALL.iter().find(|s| Some(s.as_str()) == stage).ok_or_else(invalid)?;
        let point = Point::ALL.iter().find(|p| Some(p.as_str()) == point).ok_or_else(invalid)?;
        Ok(Self { place, stage: *stage, point: *point, hits_left: AtomicU32::new(nth) })
    }
}

/// What the environment asks of the program at `place`: nothing, where it asks nothing or another program.
///
/// # Errors
/// As [`KillAt::parse`].
pub fn from_environment(place: Place) -> Result<Arc<dyn FailPoints>, Failure> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(Arc::new(NoFailPoints)) };
    let kill = KillAt::parse(&text)?;
    Ok(if kill.place == place { Arc::new(kill) } else { Arc::new(NoFailPoints) })
}

#[async_trait]
impl FailPoints for KillAt {
    async fn hit(&self, place: Place, stage: Stage, point: Point, _: &TransferKey) {
        if (place, stage, point) != (self.place, self.stage, self.point) {
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
        let kill = KillAt::parse("receiver:import:after-effect:3").unwrap();
        assert_eq!((kill.place, kill.stage, kill.point), (Place::Receiver, Stage::Import, Point::AfterEffect));
        assert_eq!(kill.hits_left.into_inner(), 3);
        for bad in
            ["", "receiver", "receiver:import", "receiver:import:now", "receiver:import:after-effect:0", "x:import:after-effect"]
        {
            assert_eq!(KillAt::parse(bad).unwrap_err().code(), Code::ConfigInvalid, "{bad}");
        }
    }
}
