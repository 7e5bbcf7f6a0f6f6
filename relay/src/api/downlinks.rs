//! The calls of the way back.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use towpath_transfer::{
    AgentName, TransferId,
    api::{Acknowledgement, Downlinks, Export, ExportStatus},
    digest::Sha256Digest,
};

use super::{
    App,
    auth::Authenticated,
    body::{JsonBody, QueryOf, TransferPath},
    handlers::Answer,
};

/// The query of the long poll.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Poll {
    /// Seconds to wait for a change; more than 55 means 55.
    #[serde(default)]
    #[param(required = false, format = "uint64")]
    wait: u64,
    /// The version of the list that is known.
    #[serde(default)]
    unless: Option<Sha256Digest>,
}

/// The query of an export's status.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// The agent that the export is for.
    agent: AgentName,
}

/// The return files that wait for the calling agent.
///
/// Answers at once where the list is another than the one of `unless`, or, without `unless`, where it is not empty; else as soon
/// as that becomes so, or when `wait` is over.
#[utoipa::path(
    get,
    path = "/v1/downlinks",
    params(Poll),
    security(("token" = [])),
    responses(
        (status = 200, description = "What waits, oldest first.", body = Downlinks),
    )
)]
pub(super) async fn downlinks(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(poll): QueryOf<Poll>,
) -> Answer<Json<Downlinks>> {
    Ok(Json(app.service.downlinks(&caller, Duration::from_secs(poll.wait), poll.unless).await?))
}

/// An agent says how a downlink has ended.
#[utoipa::path(
    post,
    path = "/v1/downlinks/{transfer}/acknowledge",
    params(("transfer" = TransferId, Path, description = "The transfer.")),
    request_body = Acknowledgement,
    security(("token" = [])),
    responses(
        (status = 204, description = "Kept."),
        (status = 422, description = "The receipt does not prove what it says."),
    )
)]
pub(super) async fn acknowledge(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    TransferPath(transfer): TransferPath,
    JsonBody(acknowledgement): JsonBody<Acknowledgement>,
) -> Answer<StatusCode> {
    app.service.acknowledge(&caller, transfer, &acknowledgement).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A receiver has laid out return files: fetch them, and queue them for their agent.
///
/// Poll `GET /v1/app/exports/{transfer}` for what comes of it. Saying the same again changes nothing, and makes the relay look at
/// once where it was waiting for files that were missing.
#[utoipa::path(
    post,
    path = "/v1/app/exports",
    request_body = Export,
    security(("token" = [])),
    responses(
        (status = 202, description = "Announced, or how far it is already.", body = ExportStatus),
        (status = 409, description = "It was announced as something else, or its sequence number belongs to another transfer."),
        (status = 422, description = "Its sequence number is larger than the relay can keep."),
        (status = 507, description = "As many transfers as may be are on their way to the agent. Try again later."),
    )
)]
pub(super) async fn export(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(export): JsonBody<Export>,
) -> Answer<(StatusCode, Json<ExportStatus>)> {
    Ok((StatusCode::ACCEPTED, Json(app.service.export(&caller, &export).await?)))
}

/// Where a downlink stands, and its receipts so far, up to the agent's own.
#[utoipa::path(
    get,
    path = "/v1/app/exports/{transfer}",
    params(("transfer" = TransferId, Path, description = "The transfer."), Of),
    security(("token" = [])),
    responses(
        (status = 200, description = "Its state.", body = ExportStatus),
    )
)]
pub(super) async fn export_status(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    TransferPath(transfer): TransferPath,
    QueryOf(of): QueryOf<Of>,
) -> Answer<Json<ExportStatus>> {
    Ok(Json(app.service.export_status(&caller, &of.agent, transfer).await?))
}
