//! Errors of the API: all of one shape, `{"error": {"code": ..., "message": ...}}`.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gamemesh_outbox::store::StoreErrorKind;
use serde::Serialize;
use utoipa::ToSchema;

/// When to ask again what too many ask now.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
}

/// The answer to a request that was not done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

/// What was wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// For programs; does not change.
    code: &'static str,
    /// For people.
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let error = ErrorDetail { code, message: message.into() };
        Self { status, body: ErrorBody { error }, retry_after: None }
    }

    pub(super) fn unauthorized(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    pub(super) fn too_many_failures(retry_after: Duration) -> Self {
        let message = "too many wrong tokens from this address: wait for a minute; the right one is heard at any time";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Says what became of a request by what the store could do about it.
    pub(super) fn of_store(kind: StoreErrorKind, message: String) -> Self {
        match kind {
            StoreErrorKind::Unavailable | StoreErrorKind::Unusable => Self::unavailable("store_failed", message),
            StoreErrorKind::Refused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", message),
            StoreErrorKind::NotGranted => {
                let hint = "the relay's login needs the role outbox_operator too (docs/security-roles.md)";
                Self::new(StatusCode::FORBIDDEN, "not_granted", format!("{message}; {hint}"))
            }
            StoreErrorKind::Busy => {
                let error = Self::unavailable("busy", format!("{message}: ask again in a moment"));
                Self { retry_after: Some(BUSY_FOR), ..error }
            }
        }
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Gives the errors that no handler wrote (no such route, wrong method, too large, too late) the shape of the others.
pub(super) async fn one_shape(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/api/");
    let response = next.run(request).await;
    let status = response.status();
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if !ours || json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (code, message) = match status {
        StatusCode::NOT_FOUND => ("no_such_route", "there is no such route; /api/v1/openapi.json lists them"),
        StatusCode::METHOD_NOT_ALLOWED => ("wrong_method", "this route has another method"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the request is too large"),
        StatusCode::SERVICE_UNAVAILABLE => ("too_late", "the answer took too long"),
        _ => ("failed", "the request failed"),
    };
    let mut shaped = ApiError::new(status, code, message).into_response();
    for name in [header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}
