use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::super::place::QueuePlace;
use super::super::position::Looking;
use super::super::table::Waited;
use super::fault::Fault;
use super::row::ModelRow;
use super::server::Server;
use super::world::World;
use crate::store::{ClaimLimit, Route};

/// A statement on its way. Says whether the connection outlives it.
pub(super) type Statement = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The shortest pause between two looks of a wait. Longer than on a server: only the time that a run takes depends on it.
const PAUSE_MIN_MS: f64 = 20.0;

/// The server's side of a connection.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) world: Arc<World>,
    pub(super) connection: u32,
}

impl Backend {
    pub(super) fn server<R>(&self, work: impl FnOnce(&mut Server, u32) -> R) -> R {
        self.world.server(|server| work(server, self.connection))
    }

    /// Runs statements one after the other, also those that nobody waits for any more, until the connection is closed.
    pub(super) async fn serve(self, mut statements: UnboundedReceiver<Statement>) {
        // Where no time passes, two could take a row from each other for ever.
        pause(self.world.millis(0..=1)).await;
        while let Some(statement) = statements.recv().await {
            self.server(Server::busy);
            let goes_on = statement.await;
            self.server(Server::idle);
            if !goes_on {
                break;
            }
        }
        pause(self.world.lag()).await;
        self.server(Server::close);
    }

    /// `outbox_wait_for_due`.
    pub(super) async fn wait(self, at_most: Duration, looking: Looking, except: Vec<Route>) -> Result<Waited, Fault> {
        let now = || self.server(|server, _| server.now());
        let ms = |us: i64| us as f64 / 1000.0;
        let (at_most_ms, quiet_ms) = (at_most.as_millis() as f64, looking.quiet.as_millis() as f64);
        let began = now();
        let mut start_at = began + i64::try_from(looking.start_in.as_millis()).expect("a run is short") * 1000;
        let mut start_look = None;
        loop {
            let looked = now();
            let from_start = looked >= start_at;
            let from = if from_start { QueuePlace::START } else { looking.after };
            self.walk(from).await;
            let found = self.server(|server, connection| server.first_due(connection, looked, from, &except))?;
            if found.is_some() {
                return Ok(Waited { found, start_look });
            }
            let look_us = now() - looked;
            if from_start {
                start_look = Some(Duration::from_micros(look_us.unsigned_abs()));
                start_at = now() + 20 * look_us;
            }
            let waited_ms = ms(now() - began);
            if waited_ms >= at_most_ms {
                return Ok(Waited { found, start_look });
            }
            let rarely = PAUSE_MIN_MS.max((quiet_ms + waited_ms) / 50.0).max(ms(look_us) / 50.0);
            let pause_ms = rarely.min(PAUSE_MIN_MS.max(at_most_ms / 40.0)).min(at_most_ms - waited_ms);
            sleep(Duration::from_secs_f64(pause_ms / 1000.0)).await;
        }
    }

    /// `outbox_claim`: walks, locks, and writes out.
    pub(super) async fn claim(self, from: QueuePlace, limit: ClaimLimit) -> Result<Vec<ModelRow>, Fault> {
        let began = self.server(|server, _| server.now());
        self.walk(from).await;
        let rows = self.server(|server, connection| server.claim(connection, began, from, &limit))?;
        for _ in &rows {
            pause(self.world.plan.write).await;
        }
        Ok(rows)
    }

    async fn walk(&self, from: QueuePlace) {
        let dead = self.server(|server, _| server.dead_after(from));
        pause(dead * self.world.plan.walk).await;
    }
}

/// Lets time pass, in whole milliseconds, as timers count it.
async fn pause(time: Duration) {
    if time >= Duration::from_millis(1) {
        sleep(time).await;
    }
}
