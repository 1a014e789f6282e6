//! The largest message that the server takes. The client learns it when it connects, and never again.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::{Inner, login_options, message};
use crate::event::Event;

/// How often the server is asked for the sake of an event that is too large.
const RECENT: Duration = Duration::from_secs(1);
/// How long it may take to answer. The batch waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the server was last asked for its limit.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<Option<Instant>>);

impl Inner {
    /// Asks for the server's limit where an event exceeds the one that is known, and connects anew where it was raised.
    pub(super) async fn notice_raised_limit(&self, events: &[Event]) {
        let known = self.client.max_payload();
        if !events.iter().any(|event| message::exceeds(event, known)) {
            return;
        }
        let mut asked = self.limit.0.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < RECENT) || self.client.max_payload() != known {
            return;
        }
        match timeout(PATIENCE, self.limit_now()).await {
            Ok(Ok(now)) if now > known => {
                info!(bytes = now, before = known, "the server takes larger messages now: connecting anew");
                self.connect_anew().await;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "cannot ask the server for its limit"),
            Err(_) => debug!("the server did not tell its limit in time"),
        }
        *asked = Some(Instant::now());
    }

    /// Asks on a connection of its own: the one in use is told nothing.
    async fn limit_now(&self) -> Result<usize, String> {
        let servers = self.config.servers().map_err(|error| error.chain())?;
        let options = login_options(&self.config, servers.require_tls()).map_err(|error| error.chain())?;
        let client = options.connect(servers.addresses).await.map_err(|error| error.to_string())?;
        Ok(client.server_info().max_payload)
    }

    /// Replaces the connection once nothing is in flight, so that no acknowledgement is lost.
    pub(super) async fn connect_anew(&self) {
        let Ok(_nothing_in_flight) = timeout(self.config.publish_timeout, self.in_flight.write()).await else { return };
        let mut signals = self.signals.subscribe();
        let before = signals.borrow_and_update().connections();
        if self.client.force_reconnect().await.is_ok() {
            let connected = signals.wait_for(|signals| signals.connections() > before);
            let _ = timeout(self.config.publish_timeout, connected).await;
            // What the server says at the beginning is known when the client goes on to its next work.
            let _ = timeout(self.config.publish_timeout, self.client.flush()).await;
        }
    }
}
