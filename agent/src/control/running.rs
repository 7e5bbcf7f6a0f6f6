//! What the agent that runs answers.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_journal::WakeUp;
use towpath_transfer::failure::Result;

use super::{Answer, Answers, Request};
use crate::{doctor, parts::Parts, reload::Reloader, rotation::KeyRotator, update::hold};

/// The agent that runs, as commands see it.
#[derive(Debug, Clone)]
pub struct Running {
    /// What it works with.
    pub parts: Arc<Parts>,
    /// Makes the stages look for work.
    pub wake: WakeUp,
    /// Reads the configuration again.
    pub reloader: Reloader,
    /// Changes the agent's key.
    pub rotator: KeyRotator,
    /// The version that runs.
    pub version: String,
}

#[async_trait]
impl Answers for Running {
    async fn answer(&self, request: Request) -> Result<Answer> {
        match request {
            Request::Wake => {
                self.wake.hint();
                Ok(Answer::Done)
            }
            Request::Doctor => Ok(doctor::by_service(&self.parts).await),
            Request::RotateKey { overlap, kind } => self.rotator.rotate(overlap, kind).await.map(Answer::Rotated),
            Request::Version => Ok(Answer::Version { version: self.version.clone() }),
            Request::Hold => hold::begin(&self.parts).await.map(|open| Answer::Held { open }),
            Request::GoOn => hold::end(&self.parts).map(|()| Answer::Done),
            Request::Reload => self.reloader.reload().await.map(Answer::Reloaded),
        }
    }
}
