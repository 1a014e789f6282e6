//! SIGTERM and SIGINT: the first asks the program to finish, the second ends it at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::report::CommandError;

/// Signals closer together than this are one request.
const SAME_REQUEST: Duration = Duration::from_millis(250);

/// Returns a token that the first signal cancels.
pub fn stop_on_signal() -> Result<CancellationToken, CommandError> {
    let listen = |kind| signal(kind).map_err(|error| CommandError::failure("cannot listen for signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let signal = next(&mut terminate, &mut interrupt).await;
        info!(signal, "stopping: batches in progress are finished first");
        stopping.cancel();
        // Some supervisors signal a process and then its whole group: what comes at once is the same request.
        while tokio::time::timeout(SAME_REQUEST, next(&mut terminate, &mut interrupt)).await.is_ok() {}
        let signal = next(&mut terminate, &mut interrupt).await;
        warn!(signal, "ended at once by a second signal");
        std::process::exit(128 + signal);
    });
    Ok(stop)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
