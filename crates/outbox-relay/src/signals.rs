//! What signals ask of the program. TERM, INT and QUIT ask it to finish, and once more, to finish sooner; those that ask
//! other daemons to reload or to report ask nothing of this one, and must not end it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::log_writer;
use crate::report::CommandError;

/// Signals closer together than this are one request.
const SAME_REQUEST: Duration = Duration::from_millis(250);

/// What was asked for by now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping {
    /// To finish.
    pub stop: CancellationToken,
    /// To finish without waiting for what is in progress.
    pub hurry: CancellationToken,
}

/// Listens for every signal that people and supervisors send to a daemon. The first that asks to finish cancels `stop`, the
/// second `hurry`, and the third ends the program at once.
pub(crate) fn listen() -> Result<Stopping, CommandError> {
    for (kind, name) in [
        (SignalKind::hangup(), "HUP"),
        (SignalKind::user_defined1(), "USR1"),
        (SignalKind::user_defined2(), "USR2"),
        (SignalKind::alarm(), "ALRM"),
    ] {
        go_on_at(kind, name)?;
    }
    let mut requests = requests()?;
    let stopping = Stopping::default();
    let Stopping { stop, hurry } = stopping.clone();
    tokio::spawn(async move {
        let signal = requests.next().await;
        info!(signal, "stopping: batches in progress are finished first");
        stop.cancel();
        let signal = requests.another().await;
        warn!(signal, "a second signal: what is not finished is given back now; a third one ends the program at once");
        hurry.cancel();
        requests.exit_at_another().await;
    });
    Ok(stopping)
}

/// Returns a token that the first signal to finish cancels. The second ends the program at once.
pub fn stop_on_signal() -> Result<CancellationToken, CommandError> {
    let mut requests = requests()?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        let signal = requests.next().await;
        info!(signal, "stopping: what is in progress is finished first");
        stopping.cancel();
        requests.exit_at_another().await;
    });
    Ok(stop)
}

/// Says that a signal has come, and nothing else. Where it is ignored, as HUP is under `nohup`, that comes to the same.
fn go_on_at(kind: SignalKind, name: &'static str) -> Result<(), CommandError> {
    let mut signal = listener(kind)?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            info!(
                signal = name,
                "going on: connection strings and certificates in files are read again for each new connection anyway, \
                 other settings take a restart, and the log goes to standard error"
            );
        }
    });
    Ok(())
}

/// Signals that ask to finish, by number.
struct Requests(mpsc::UnboundedReceiver<i32>);

fn requests() -> Result<Requests, CommandError> {
    let (sender, requests) = mpsc::unbounded_channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()] {
        let (mut signal, sender) = (listener(kind)?, sender.clone());
        tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(kind.as_raw_value()).is_ok() {} });
    }
    Ok(Requests(requests))
}

fn listener(kind: SignalKind) -> Result<tokio::signal::unix::Signal, CommandError> {
    signal(kind).map_err(|error| CommandError::failure("cannot listen for signals", error))
}

impl Requests {
    async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(signal) => signal,
            // The listeners end with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Waits for the next request: some supervisors signal a process and then its whole group, and what comes at once is
    /// the same one.
    async fn another(&mut self) -> i32 {
        while tokio::time::timeout(SAME_REQUEST, self.next()).await.is_ok() {}
        self.next().await
    }

    async fn exit_at_another(&mut self) {
        let signal = self.another().await;
        warn!(signal, "ended at once by one more signal");
        log_writer::flush();
        std::process::exit(128 + signal);
    }
}
