//! The HTTP API. Its routes and its OpenAPI document come from the same declarations, so neither can miss one.

mod dead_letters;
mod live;
mod model;
mod troubles;

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::guard::guard;
use super::state::AppState;

const DESCRIPTION: &str = "Reads what the relay does, and acts on dead letters. Reading needs nothing; an operation that \
     names the `admin_token` needs it as a bearer token, a JSON body, and a host name that the relay knows \
     (`OUTBOX_HTTP_HOSTS`). Every error has the same shape.";

pub(super) fn router(state: &AppState) -> Router<AppState> {
    let (router, document) = documented(state).split_for_parts();
    router.layer(Extension(Arc::new(document)))
}

fn documented(state: &AppState) -> OpenApiRouter<AppState> {
    let changes = OpenApiRouter::new()
        .routes(routes!(dead_letters::payload))
        .routes(routes!(dead_letters::requeue))
        .routes(routes!(dead_letters::discard))
        .route_layer(from_fn_with_state(state.clone(), guard));
    OpenApiRouter::with_openapi(about())
        .routes(routes!(live::state))
        .routes(routes!(live::events))
        .routes(routes!(troubles::list))
        .routes(routes!(openapi))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::groups))
        .routes(routes!(dead_letters::show))
        .merge(changes)
}

/// Returns this document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "relay", responses((status = OK, description = "OpenAPI 3.1")))]
async fn openapi(Extension(document): Extension<Arc<OpenApi>>) -> Response {
    Json(&*document).into_response()
}

fn about() -> OpenApi {
    let mut components = Components::new();
    components.add_security_scheme("admin_token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let info = InfoBuilder::new()
        .title("GameMesh Outbox relay")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION));
    OpenApiBuilder::new().info(info.build()).components(Some(components)).build()
}
