use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::super::place::{Part, QueuePlace};
use super::super::position::Looking;
use super::super::server_time::ServerTime;
use super::super::table::{Held, Seen};
use super::fault::Fault;
use super::row::ModelRow;
use super::server::Server;
use super::world::World;
use crate::store::ClaimLimit;

/// A statement on its way. Says whether the connection outlives it.
pub(super) type Statement = Pin<Box<dyn Future<Output = bool> + Send>>;

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

    /// `look_for_due.sql`.
    pub(super) async fn look(self, looking: Looking, limit: ClaimLimit) -> Result<Seen, Fault> {
        let began = self.server(|server, _| server.now());
        let from = if looking.from_start { QueuePlace::START } else { looking.after };
        self.walk(Part::behind(from)).await;
        Ok(self.server(|server, connection| {
            let found = server.first_due(connection, began, from, &limit);
            Seen { found, at: ServerTime::at(server.now()) }
        }))
    }

    /// `outbox_claim`: walks, locks, and writes out.
    pub(super) async fn claim(self, from: QueuePlace, limit: ClaimLimit) -> Result<Vec<ModelRow>, Fault> {
        let began = self.server(|server, _| server.now());
        self.walk_in_time(Part::behind(from)).await?;
        let rows = self.server(|server, connection| server.claim(connection, began, from, &limit))?;
        for _ in &rows {
            pause(self.world.plan.write).await;
        }
        Ok(rows)
    }

    /// `lock_due.sql`.
    pub(super) async fn hold(self, part: Part, limit: ClaimLimit) -> Result<Vec<Held>, Fault> {
        let began = self.server(|server, _| server.now());
        self.walk_in_time(part).await?;
        self.server(|server, connection| server.hold(connection, began, part, &limit))
    }

    /// Walks, until the server ends it.
    async fn walk_in_time(&self, part: Part) -> Result<(), Fault> {
        let limit = self.world.plan.statement;
        if self.walks(part) <= limit {
            self.walk(part).await;
            return Ok(());
        }
        pause(limit).await;
        self.server(Server::abort);
        Err(Fault::OutOfTime)
    }

    async fn walk(&self, part: Part) {
        pause(self.walks(part)).await;
    }

    fn walks(&self, part: Part) -> Duration {
        self.server(|server, _| server.dead_in(part)) * self.world.plan.walk
    }
}

/// Lets time pass, in whole milliseconds, as timers count it.
async fn pause(time: Duration) {
    if time >= Duration::from_millis(1) {
        sleep(time).await;
    }
}
