//! The service over HTTP: `POST /register` and `GET /healthz`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gamemesh_outbox::{Carrier, inject_carrier, resume_from_carrier};
use serde::Serialize;
use serde_json::json;
use tracing::{Instrument, Span, error, info, info_span};
use uuid::Uuid;

use crate::{Player, Players, RegisterError, Registration};

/// Serves `players`.
pub fn router(players: Players) -> Router {
    Router::new().route("/register", post(register)).route("/healthz", get(async || "ok")).with_state(players)
}

/// The answer to a registration.
#[derive(Debug, Serialize)]
struct Registered {
    player: Player,
    /// The id of the message that will announce the player.
    event_id: Uuid,
    /// The trace that this request, the row in the outbox and the message belong to.
    trace_id: Option<String>,
}

/// Registers a player, as a part of the client's trace where it sent a `traceparent`.
async fn register(
    State(players): State<Players>,
    headers: HeaderMap,
    Json(registration): Json<Registration>,
) -> Result<impl IntoResponse, RegisterError> {
    let span = info_span!("register", otel.name = "POST /register", otel.kind = "server");
    resume_from_carrier(&span, &trace_context(&headers));
    let registered = async {
        let (player, event_id) = players.register(registration).await?;
        let trace_id = inject_carrier(&Span::current()).trace_id().map(|id| id.to_string());
        info!(player_id = %player.id, %event_id, trace_id, "player registered");
        Ok((StatusCode::CREATED, Json(Registered { player, event_id, trace_id })))
    };
    registered.instrument(span).await
}

fn trace_context(headers: &HeaderMap) -> Carrier {
    let names = ["traceparent", "tracestate", "baggage"];
    let entry = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    names.into_iter().filter_map(entry).collect()
}

impl IntoResponse for RegisterError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::Database(_) | Self::Event(_) => {
                error!(error = format!("{:#}", anyhow::Error::from(self)), "player not registered");
                return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": "internal error"}))).into_response();
            }
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}
