use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::place::{QueuePlace, RowVersion};
use super::super::position::Looking;
use super::super::table::{Charged, Columns, Step, Table, TableRow, Waited};
use super::backend::{Backend, Statement};
use super::fault::Fault;
use super::row::ModelRow;
use super::rules::Mistake;
use super::server::Server;
use super::watch::Watch;
use super::world::{Fate, World};
use crate::store::{ClaimLimit, OnPublished, Route};

/// The table, over a connection to the server of a model.
pub(super) struct ModelTable {
    backend: Backend,
    statements: UnboundedSender<Statement>,
}

impl ModelTable {
    pub(super) fn connect(world: &Arc<World>, connection: u32) -> Self {
        let (statements, received) = unbounded_channel();
        let backend = Backend { world: Arc::clone(world), connection };
        tokio::spawn(backend.clone().serve(received));
        Self { backend, statements }
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
                Fate::Cancelled => {
                    backend.server(Server::abort);
                    Err(Fault::Many)
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

    async fn begin(&self, lifetime: Duration) -> Result<(), Fault> {
        self.watch(Watch::look_begins);
        let lifetime = i64::try_from(lifetime.as_micros()).expect("a run is short");
        self.run(move |server, connection| server.begin(connection, lifetime)).await
    }

    async fn step(&self, step: Step) -> Result<(), Fault> {
        let forward = step == Step::BackBeforeRow && self.makes(Mistake::NoSavepoint);
        let step = if forward { Step::AfterRow } else { step };
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

    async fn wait(&self, at_most: Duration, looking: &Looking, except: &[Route]) -> Result<Waited, Fault> {
        self.watch(|watch, connection| watch.look_waits(connection, looking.start_in));
        let (looking, except) = (*looking, except.to_vec());
        let waited = self.ask(move |backend| backend.wait(at_most, looking, except)).await?;
        self.watch(|watch, connection| watch.look_waited(connection, waited.start_look, waited.found.is_some()));
        Ok(waited)
    }

    async fn claim(&self, limit: &ClaimLimit, from: QueuePlace) -> Result<Vec<ModelRow>, Fault> {
        let first = self.watch(|watch, connection| watch.look_asks(connection, from));
        if !first && self.makes(Mistake::OneLookIsEnough) {
            return Ok(Vec::new());
        }
        let mut limit = limit.clone();
        if self.makes(Mistake::PausesIgnored) {
            limit.except.clear();
        }
        let rows = self.ask(move |backend| backend.claim(from, limit)).await;
        let mut rows =
            rows.map_err(|fault| if self.makes(Mistake::RowsAreNotSuspected) { Fault::Other } else { fault })?;
        self.watch(Watch::look_is_answered);
        for row in &mut rows {
            row.lies_far_away = row.is_beyond() && self.makes(Mistake::NoWayBack);
            row.beyond &= !self.makes(Mistake::LimitsIgnored);
        }
        Ok(rows)
    }

    async fn hold(&self, limit: &ClaimLimit) -> Result<Vec<Uuid>, Fault> {
        self.watch(Watch::look_goes_row_by_row);
        let limit = limit.clone();
        let held = self.run(move |server, connection| server.hold(connection, &limit)).await?;
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

    fn give_back(self) {}
}
