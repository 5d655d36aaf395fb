//! Refusals over HTTP: the same error as on the wire, with a status.
//!
//! Called by: every handler. Invariants: the body is `{"error": {code, message, advice}}`; the
//! status follows the code, else the advice.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::Advice;
use protocol::{WireError, code};

pub(super) struct Refusal(pub WireError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(&self.0), axum::Json(body(&self.0))).into_response()
    }
}

pub(super) fn body(error: &WireError) -> serde_json::Value {
    serde_json::json!({ "error": error })
}

pub(super) fn method_not_allowed(message: String) -> Response {
    let error = WireError::fix(code::BAD_REQUEST, message);
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(body(&error))).into_response()
}

fn status(error: &WireError) -> StatusCode {
    match (error.code.as_str(), error.advice) {
        (code::NOT_FOUND, _) => StatusCode::NOT_FOUND,
        (code::EXISTS, _) => StatusCode::CONFLICT,
        (code::TOO_LARGE, _) => StatusCode::PAYLOAD_TOO_LARGE,
        (code::TIMEOUT, _) => StatusCode::GATEWAY_TIMEOUT,
        (_, Advice::Fix) => StatusCode::BAD_REQUEST,
        (_, Advice::Retry) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Advice::Fenced) => StatusCode::CONFLICT,
        (_, Advice::Bug) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
