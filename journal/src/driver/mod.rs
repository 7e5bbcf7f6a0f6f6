//! The driver of a stage.
mod step;
pub use step::{FailPoints, NoFailPoints, NoObserver, Observer, Point, StageReport, StageResult, Step, StepOutcome};
