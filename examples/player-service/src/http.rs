//! The service over HTTP: `POST /register`, `PATCH /players/{id}` and `GET /healthz`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use gamemesh_outbox::{Carrier, inject_carrier, resume_from_carrier};
use serde::Serialize;
use serde_json::json;
use tracing::{Instrument, Span, error, info, info_span};
use uuid::Uuid;

use crate::{Change, Player, PlayerError, Players, Registration};

/// Serves `players`.
pub fn router(players: Players) -> Router {
    Router::new()
        .route("/register", post(register))
        .route("/players/{id}", patch(update))
        .route("/healthz", get(async || "ok"))
        .with_state(players)
}

/// The answer to a registration or a change.
#[derive(Debug, Serialize)]
struct Announced {
    player: Player,
    /// The id of the message that will announce it.
    event_id: Uuid,
    /// The trace that this request, the row in the outbox and the message belong to.
    trace_id: Option<String>,
}

/// Registers a player, as a part of the client's trace where it sent a `traceparent`.
async fn register(
    State(players): State<Players>,
    headers: HeaderMap,
    Json(registration): Json<Registration>,
) -> Result<impl IntoResponse, PlayerError> {
    let span = info_span!("register", otel.name = "POST /register", otel.kind = "server");
    let announced = announced(span, &headers, players.register(registration)).await?;
    Ok((StatusCode::CREATED, Json(announced)))
}

/// Changes a player, in the same way.
async fn update(
    State(players): State<Players>,
    Path(player_id): Path<Uuid>,
    headers: HeaderMap,
    Json(change): Json<Change>,
) -> Result<impl IntoResponse, PlayerError> {
    let span = info_span!("update", otel.name = "PATCH /players/{id}", otel.kind = "server");
    Ok(Json(announced(span, &headers, players.update(player_id, change)).await?))
}

async fn announced(
    span: Span,
    headers: &HeaderMap,
    written: impl Future<Output = Result<(Player, Uuid), PlayerError>>,
) -> Result<Announced, PlayerError> {
    resume_from_carrier(&span, &trace_context(headers));
    let announced = async {
        let (player, event_id) = written.await?;
        let trace_id = inject_carrier(&Span::current()).trace_id().map(|id| id.to_string());
        info!(player_id = %player.player_id, %event_id, trace_id, "player written");
        Ok(Announced { player, event_id, trace_id })
    };
    announced.instrument(span).await
}

fn trace_context(headers: &HeaderMap) -> Carrier {
    let names = ["traceparent", "tracestate", "baggage"];
    let entry = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    names.into_iter().filter_map(entry).collect()
}

impl IntoResponse for PlayerError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Taken => StatusCode::CONFLICT,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Database(_) | Self::Event(_) => {
                error!(error = format!("{:#}", anyhow::Error::from(self)), "player not written");
                return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"error": "internal error"}))).into_response();
            }
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}
