//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use towpath_transfer::{Code, Failure, api::Problem};

/// The content type of an error.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A failure on its way to a caller.
#[derive(Debug)]
pub(super) struct Refusal {
    failure: Failure,
    status: StatusCode,
}

impl Refusal {
    pub(super) fn with_status(failure: Failure, status: StatusCode) -> Self {
        Self { failure, status }
    }

    /// A request whose form is wrong.
    pub(super) fn request(message: impl Into<String>, status: StatusCode) -> Self {
        Self::with_status(Failure::park(Code::RequestInvalid, message), status)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = status_of(failure.code());
        Self { failure, status }
    }
}

/// The status that goes with a code: 429 and 5xx can be tried again, the others not.
pub(super) fn status_of(code: Code) -> StatusCode {
    match code {
        Code::AuthenticationRefused | Code::ClockSkew => StatusCode::UNAUTHORIZED,
        Code::AgentRevoked | Code::AgentUnapproved | Code::EnrolmentUnknown | Code::EnrolmentProofInvalid => {
            StatusCode::FORBIDDEN
        }
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::EnrolmentUsed | Code::RotationInvalid | Code::TransferFrozen | Code::SequenceForked => StatusCode::CONFLICT,
        Code::EnrolmentExpired => StatusCode::GONE,
        Code::RequestInvalid | Code::KeyInvalid | Code::EnrolmentCodeInvalid => StatusCode::BAD_REQUEST,
        Code::ReceiptInvalid | Code::SignatureInvalid | Code::ManifestInvalid | Code::PackedListInvalid | Code::LimitExceeded => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::SpoolFull | Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::JournalFailed | Code::FileFailed | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { failure, status } = self;
        let code = failure.code();
        let internal = status.is_server_error();
        let report = failure.report();
        if internal {
            tracing::error!(%code, error = %report, "a call failed");
        } else {
            tracing::info!(%code, status = status.as_u16(), error = %report, "a call was refused");
        }
        // What went wrong inside is in the relay's log and no affair of a caller.
        let detail = if internal { "the relay cannot do this now".to_owned() } else { failure.message().to_owned() };
        let problem = Problem {
            problem_type: format!("/docs/errors/{code}.md"),
            title: code.as_str().replace('-', " "),
            status: status.as_u16(),
            detail,
            code,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(pause) = failure.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)));
        }
        response.extensions_mut().insert(code);
        response
    }
}
