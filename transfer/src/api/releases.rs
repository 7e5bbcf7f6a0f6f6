//! Which releases a relay has for an agent.

use serde::{Deserialize, Serialize};

use crate::release::ReleaseVersion;

/// The most releases that a relay keeps.
pub const MAX_RELEASES: usize = 20;

/// `GET /v1/releases`: the versions that the relay's operator has approved for the calling agent's tenant. Their files lie in
/// `/update/<version>/` of the agent's folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// The oldest first, at most [`MAX_RELEASES`]. The last is the one to follow; the others are there to go back to.
    #[schema(max_items = 20)]
    pub versions: Vec<ReleaseVersion>,
}
