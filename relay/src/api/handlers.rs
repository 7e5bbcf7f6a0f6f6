//! One function per call.

use axum::{
    Json,
    extract::State,
    http::{Extensions, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde::Deserialize;
use towpath_transfer::announcement::SignedAnnouncement;
use towpath_transfer::api::{
    AppReceipt, Complete, EnrolmentAnswer, EnrolmentRequest, Expectations, KeyRotation, Peers, Releases, UplinkStatus,
};

use super::{
    App,
    auth::{Authenticated, proven},
    body::{JsonBody, QueryOf, StrangersBody, TransferPath},
    document::openapi_json,
    guard,
    guest::Guest,
    problem::Refusal,
};

pub(super) type Answer<T> = Result<T, Refusal>;

/// Whether the relay's web service answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.", content_type = "text/plain", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json")))]
pub(super) async fn openapi() -> Answer<impl IntoResponse> {
    Ok(([(CONTENT_TYPE, "application/json")], openapi_json()?))
}

/// Enrol an agent or a receiver by its one-time code.
///
/// The code binds to the first key that uses it; the same key gets the same answer again until the code expires.
#[utoipa::path(
    post,
    path = "/v1/enrolments",
    request_body = EnrolmentRequest,
    responses(
        (status = 200, description = "Enrolled.", body = EnrolmentAnswer),
        (status = 401, description = "The key that has used the code was retired."),
        (status = 403, description = "The code is unknown, the proof is wrong, or the key or its end was revoked."),
        (status = 409, description = "Another key has used the code."),
        (status = 410, description = "The code is too old."),
        (status = 422, description = "The tenant has as many ends as it may have."),
    )
)]
pub(super) async fn enrol(
    State(app): State<App>,
    extensions: Extensions,
    body: StrangersBody<EnrolmentRequest>,
) -> Answer<Json<EnrolmentAnswer>> {
    let _place = guard::place(&app.permits)?;
    let enrolled = app.service.enrol(&body.value, Guest::of(&extensions).map(Guest::address)).await;
    Ok(Json(proven(&app, "enrolment", &extensions, enrolled, |answer| answer.sftp_user.clone())?))
}

/// The enrolled ends of the other role in the caller's tenant.
#[utoipa::path(
    get,
    path = "/v1/peers",
    security(("token" = [])),
    responses(
        (status = 200, description = "The ends.", body = Peers),
    )
)]
pub(super) async fn peers(State(app): State<App>, Authenticated(caller): Authenticated) -> Answer<Json<Peers>> {
    Ok(Json(app.service.peers(&caller).await?))
}

/// The releases of the agent that the relay's operator has approved for the caller's tenant.
///
/// Their files lie in `/update/<version>/` of the agent's folder: `release.json`, which lists the packages, and its signature.
#[utoipa::path(
    get,
    path = "/v1/releases",
    security(("token" = [])),
    responses(
        (status = 200, description = "The versions, the oldest first.", body = Releases),
    )
)]
pub(super) async fn releases(State(app): State<App>, Authenticated(caller): Authenticated) -> Answer<Json<Releases>> {
    Ok(Json(app.service.releases(&caller).await?))
}

/// The calling end takes a new key, named by the one that it has.
///
/// Both are good until `old_until`. The answer is what counts, also where the same was asked for before.
#[utoipa::path(
    post,
    path = "/v1/keys",
    request_body = KeyRotation,
    security(("token" = [])),
    responses(
        (status = 200, description = "The change.", body = KeyRotation),
        (status = 409, description = "The change is not proven, or does not follow from the newest key."),
    )
)]
pub(super) async fn rotate_key(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(rotation): JsonBody<KeyRotation>,
) -> Answer<Json<KeyRotation>> {
    Ok(Json(app.service.rotate_key(&caller, &rotation).await?))
}

/// The query of the announcement.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Pinned {
    /// The serial of the announcement that the caller has pinned; 0 before the first.
    #[serde(default)]
    #[param(required = false, format = "uint64")]
    pinned: u64,
}

/// The keys that the relay shows now and will show next, signed by the present receipt key.
///
/// The header `towpath-announcement` of every answer has the serial of the newest announcement.
#[utoipa::path(
    get,
    path = "/v1/announcement",
    params(Pinned),
    security(("token" = [])),
    responses(
        (status = 200, description = "The newest announcement.", body = SignedAnnouncement),
    )
)]
pub(super) async fn announcement(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<Pinned>,
) -> Answer<Json<SignedAnnouncement>> {
    Ok(Json(app.service.announcement(&caller, query.pinned).await?))
}

/// An agent says by when the relay must have each of its jobs.
///
/// What it has said before is replaced. The relay raises the alarm where such a time is over: the agent's host may be silent.
#[utoipa::path(
    put,
    path = "/v1/expectations",
    request_body = Expectations,
    security(("token" = [])),
    responses(
        (status = 204, description = "Kept."),
    )
)]
pub(super) async fn expect(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(expectations): JsonBody<Expectations>,
) -> Answer<StatusCode> {
    app.service.expect(&caller, &expectations).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Everything of an uplink was sent: check it, forward it. The folder is frozen from here on.
///
/// Poll `GET /v1/uplinks/{transfer}` for what comes of it.
#[utoipa::path(
    post,
    path = "/v1/uplinks/{transfer}/complete",
    params(("transfer" = towpath_transfer::TransferId, Path, description = "The transfer.")),
    request_body = Complete,
    security(("token" = [])),
    responses(
        (status = 202, description = "Claimed, or what is missing already.", body = UplinkStatus),
        (status = 409, description = "It was completed with other files, or its sequence number belongs to another transfer."),
        (status = 422, description = "Its sequence number is larger than the relay can keep."),
    )
)]
pub(super) async fn complete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    TransferPath(transfer): TransferPath,
    JsonBody(complete): JsonBody<Complete>,
) -> Answer<(StatusCode, Json<UplinkStatus>)> {
    let status = app.service.complete(&caller, transfer, &complete).await?;
    Ok((StatusCode::ACCEPTED, Json(status)))
}

/// Where an uplink stands, and its receipts so far.
#[utoipa::path(
    get,
    path = "/v1/uplinks/{transfer}",
    params(("transfer" = towpath_transfer::TransferId, Path, description = "The transfer.")),
    security(("token" = [])),
    responses(
        (status = 200, description = "Its state.", body = UplinkStatus),
    )
)]
pub(super) async fn uplink(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    TransferPath(transfer): TransferPath,
) -> Answer<Json<UplinkStatus>> {
    Ok(Json(app.service.uplink(&caller, transfer).await?))
}

/// A receiver says how an uplink has ended.
#[utoipa::path(
    post,
    path = "/v1/app/receipts",
    request_body = AppReceipt,
    security(("token" = [])),
    responses(
        (status = 204, description = "Kept."),
        (status = 422, description = "The receipt does not prove what it says."),
    )
)]
pub(super) async fn receipt(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(receipt): JsonBody<AppReceipt>,
) -> Answer<StatusCode> {
    app.service.app_receipt(&caller, &receipt).await?;
    Ok(StatusCode::NO_CONTENT)
}
