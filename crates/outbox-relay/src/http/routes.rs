//! The routes.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tower_http::set_header::SetResponseHeaderLayer;

use super::metrics_format::MetricsFormat;
use super::state::AppState;
use super::{api, page, process};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every answer carries: nothing is cached, framed, guessed or loaded from elsewhere.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

pub(super) fn router(state: AppState) -> Router {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(api::router(&state))
        .merge(page::router())
        .with_state(state);
    HEADERS.into_iter().fold(router, |router, (name, value)| {
        router.layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value)))
    })
}

/// Says that the process lives, in the words of the earlier relay.
#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    service: &'a str,
}

async fn healthz(State(state): State<AppState>) -> Response {
    Json(Health { status: "ok", service: state.service() }).into_response()
}

async fn readyz(State(state): State<AppState>) -> Response {
    let readiness = state.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let telemetry = state.telemetry();
    process::measure(telemetry);
    let (content_type, text) = match MetricsFormat::wanted(&headers) {
        MetricsFormat::Plain => (PLAIN_TEXT, telemetry.encode_metrics_plainly()),
        MetricsFormat::OpenMetrics => (OPEN_METRICS, telemetry.encode_metrics()),
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}
