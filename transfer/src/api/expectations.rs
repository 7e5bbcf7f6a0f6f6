//! What the relay is to expect of an agent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::JobName;

/// The most jobs of one agent that are expected.
pub const MAX_EXPECTATIONS: usize = 100;

/// `PUT /v1/expectations`: by when the relay must have each of the calling agent's jobs. What was told before is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// The agent's jobs, at most [`MAX_EXPECTATIONS`], each once.
    #[schema(max_items = 100)]
    pub jobs: Vec<Expectation>,
}

/// By when the relay must have a transfer of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The job.
    pub job: JobName,
    /// When the relay raises the alarm, unless the agent has told another time by then; absent where nothing is expected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expected_by: Option<Timestamp>,
}
