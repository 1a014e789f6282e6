use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::place::{Part, QueuePlace, RowVersion};
use super::super::position::{Looking, Position};
use super::super::server_time::ServerTime;
use super::super::table::{Charged, Columns, Held, Seen, Step, Table, TableRow, Time};
use super::backend::{Backend, Statement};
use super::fault::Fault;
use super::row::ModelRow;
use super::rules::Mistake;
use super::server::Server;
use super::watch::Watch;
use super::world::{Fate, World};
use crate::store::{ClaimLimit, OnPublished, StoreError, StoreErrorKind};

/// The table, over a connection to the server of a model.
pub(super) struct ModelTable {
    backend: Backend,
    /// That of its replica.
    position: Position,
    statements: UnboundedSender<Statement>,
}

impl ModelTable {
    pub(super) fn connect(world: &Arc<World>, connection: u32, position: &Position) -> Self {
        let (statements, received) = unbounded_channel();
        let backend = Backend { world: Arc::clone(world), connection };
        tokio::spawn(backend.clone().serve(received));
        Self { backend, position: position.clone(), statements }
    }

    /// Has the server do `work` after what it was asked before, if nothing happens to it.
    async fn ask<R: Send + 'static, W: Future<Output = Result<R, Fault>> + Send + 'static>(
        &self,
        work: impl FnOnce(Backend) -> W,
    ) -> Result<R, Fault> {
        let (answer, answered) = oneshot::channel();
        let (backend, work) = (self.backend.clone(), work(self.backend.clone()));
        let statement = async move {
            let result = match backend.world.fate(backend.connection) {
                Fate::Well => work.await,
                Fate::Late(delay) => {
                    sleep(delay).await;
                    work.await
                }
                Fate::Ended(fault) => {
                    backend.server(Server::abort);
                    Err(fault)
                }
                Fate::Cut => return false,
                Fate::AnswerLost => {
                    let _ = work.await;
                    return false;
                }
            };
            // Whoever asked may be gone.
            let _ = answer.send(result);
            true
        };
        let _ = self.statements.send(Box::pin(statement));
        answered.await.unwrap_or(Err(Fault::Other))
    }

    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Server, u32) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        self.ask(|backend| async move { backend.server(work) }).await
    }

    fn watch<R>(&self, note: impl FnOnce(&mut Watch, u32) -> R) -> R {
        self.backend.server(|server, connection| note(&mut server.watch, connection))
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.backend.world.mistake == Some(mistake)
    }
}

impl Table for ModelTable {
    type Row = ModelRow;
    type Failure = Fault;

    async fn look(&self, looking: &Looking, limit: &ClaimLimit) -> Result<Seen, Fault> {
        if self.makes(Mistake::WaitsInTransaction) {
            self.run(|server, connection| server.begin(connection, 1_000_000)).await?;
        }
        let (began, from_start) = (Instant::now(), looking.from_start);
        let hurries = from_start && self.position.knows_a_place();
        self.watch(|watch, connection| watch.waiter_looks(connection, hurries));
        let (looking, limit) = (*looking, limit.clone());
        let seen = self.ask(move |backend| backend.look(looking, limit)).await?;
        self.watch(|watch, connection| {
            watch.waiter_looked(connection, from_start, began.elapsed(), seen.found.is_some())
        });
        Ok(seen)
    }

    async fn now(&self) -> Result<ServerTime, Fault> {
        self.run(|server, _| Ok(ServerTime::at(server.now()))).await
    }

    async fn begin(&self, time: Time) -> Result<(), Fault> {
        self.watch(Watch::look_begins);
        let lifetime = i64::try_from(time.idle.as_micros()).expect("a run is short");
        self.run(move |server, connection| server.begin(connection, lifetime)).await
    }

    async fn step(&self, step: Step) -> Result<(), Fault> {
        let step = match step {
            Step::BackBeforeRow if self.makes(Mistake::NoSavepoint) => Step::AfterRow,
            Step::BackBeforeWrite if self.makes(Mistake::NoWayBackFromAWrite) => Step::AfterWrite,
            step => step,
        };
        let held = self.backend.server(|server, connection| server.held(connection));
        self.run(move |server, connection| server.step(connection, step)).await?;
        self.watch(|watch, connection| match step {
            Step::Commit => {
                watch.look_is_over(connection);
                watch.gives_back(connection, &held);
            }
            _ => watch.look_is_answered(connection),
        });
        Ok(())
    }

    async fn claim(&self, limit: &ClaimLimit, from: QueuePlace) -> Result<Vec<ModelRow>, Fault> {
        let (sweeping, placed) = (self.position.is_sweeping(), self.position.knows_a_place());
        let first = self.watch(|watch, connection| watch.look_asks(connection, from, sweeping, placed));
        if !first && self.makes(Mistake::OneLookIsEnough) {
            return Ok(Vec::new());
        }
        let mut limit = limit.clone();
        if self.makes(Mistake::PausesIgnored) {
            limit.except.clear();
            limit.except_ids.clear();
        }
        let rows = self.ask(move |backend| backend.claim(from, limit)).await;
        let mut rows = rows.map_err(|fault| match fault {
            Fault::OutOfTime if self.makes(Mistake::TimeTeachesNothing) => Fault::Other,
            Fault::Row | Fault::Many if self.makes(Mistake::RowsAreNotSuspected) => Fault::Other,
            fault => fault,
        })?;
        self.watch(Watch::look_is_answered);
        for row in &mut rows {
            row.lies_far_away = row.is_beyond() && self.makes(Mistake::NoWayBack);
            row.beyond &= !self.makes(Mistake::LimitsIgnored);
        }
        Ok(rows)
    }

    async fn hold(&self, limit: &ClaimLimit, part: Part, _: Time) -> Result<Vec<Held>, Fault> {
        self.watch(|watch, connection| watch.look_goes_row_by_row(connection, part));
        let limit = limit.clone();
        let held = self.ask(move |backend| backend.hold(part, limit)).await?;
        self.watch(Watch::look_is_answered);
        Ok(held)
    }

    async fn read(&self, id: Uuid, _: u64, columns: Columns) -> Result<ModelRow, Fault> {
        let row = self.run(move |server, connection| server.read(connection, id, columns)).await?;
        self.watch(Watch::look_is_answered);
        Ok(row)
    }

    async fn publish(&self, versions: &[RowVersion], ids: &[Uuid], _: OnPublished) -> Result<u64, Fault> {
        let (versions, ids) = (versions.to_vec(), ids.to_vec());
        self.run(move |server, connection| server.publish(connection, &versions, &ids)).await
    }

    async fn charge(
        &self,
        ids: &[Uuid],
        _: &[String],
        waits_us: &[i64],
        attempts_max: u32,
    ) -> Result<Vec<Charged>, Fault> {
        let (ids, waits_us) = (ids.to_vec(), waits_us.to_vec());
        self.run(move |server, connection| server.charge(connection, &ids, &waits_us, attempts_max)).await
    }

    async fn defer(&self, ids: &[Uuid], waits_us: &[i64]) -> Result<u64, Fault> {
        let (ids, waits_us) = (ids.to_vec(), waits_us.to_vec());
        self.run(move |server, connection| server.defer(connection, &ids, &waits_us)).await
    }

    async fn withhold(&self, ids: &[Uuid], _: &[String], waits_us: &[i64]) -> Result<u64, Fault> {
        let (ids, waits_us) = (ids.to_vec(), waits_us.to_vec());
        self.run(move |server, connection| server.withhold(connection, &ids, &waits_us)).await
    }

    /// Nothing puts rows back in a model.
    async fn came_back(&self, _: &[Uuid]) -> Result<Vec<Uuid>, Fault> {
        Ok(Vec::new())
    }

    /// Nobody settles again in a model: no other connection is to be had.
    async fn hold_again(&self, _: &[Uuid]) -> Result<Vec<(RowVersion, Uuid)>, Fault> {
        Err(Fault::Other)
    }

    async fn reconnect(self) -> Result<Self, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unavailable, "no other connection"))
    }

    fn give_back(self) {
        self.backend.server(Server::give_back);
    }
}
