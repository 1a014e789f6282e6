//! The endpoints on `HTTP_PORT`: health, metrics, and a page where a person sees what the relay does
//! and acts on dead letters.

mod access;
mod api;
mod error;
mod guard;
mod metrics_format;
mod page;
mod process;
mod routes;
mod server;
mod state;

use std::future::Future;

use tokio::net::TcpListener;

pub(crate) use self::access::Access;
use self::server::Limits;
pub(crate) use self::state::{AppState, Phase};

/// Serves the endpoints until `stop` completes, and then finishes the requests in progress.
pub(crate) async fn serve(listener: TcpListener, state: AppState, stop: impl Future<Output = ()>) {
    let telemetry = state.telemetry().clone();
    server::serve(listener, routes::router(state), telemetry, Limits::default(), stop).await;
}
