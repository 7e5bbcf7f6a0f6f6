//! What holds for every request: a bound on how many and how long, the relay's time in the answer, and a count.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header::DATE},
    middleware::Next,
    response::{IntoResponse, Response},
};
use jiff::fmt::rfc2822::DateTimePrinter;
use towpath_transfer::{Code, Failure};

use super::{App, problem::Refusal};

/// How long a caller is asked to wait where the relay has no place for its request.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let clock = app.service.clock();
    let started = clock.monotonic();
    let path = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let mut response = match app.permits.try_acquire() {
        Ok(_permit) => {
            tokio::select! {
                response = next.run(request) => response,
                () = clock.sleep(app.limits.request_time) => {
                    Refusal::from(Failure::retry(Code::Cancelled, "the request took too long").after(BUSY_PAUSE)).into_response()
                }
            }
        }
        Err(_) => {
            let failure = Failure::retry(Code::RateLimited, "the relay works on too many requests at once").after(BUSY_PAUSE);
            Refusal::from(failure).into_response()
        }
    };
    // Callers set their tokens' times by this.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock.now())
        && let Ok(date) = HeaderValue::from_str(&date)
    {
        response.headers_mut().insert(DATE, date);
    }
    let code = response.extensions().get::<Code>().copied();
    app.metrics.request(&path, response.status().as_u16(), code, clock.monotonic().saturating_sub(started));
    response
}
