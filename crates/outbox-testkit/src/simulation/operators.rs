use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::store::dead_letters::{
    Action, AuditEntry, Batch, CountedPart, Cursor, DeadLetters, Detail, Filter, Groups, Listed, Options, Page,
    Request, Span, act,
};
use gamemesh_outbox::store::{Status, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use super::met::Met;
use super::producers::topics;
use super::store::Desk;
use super::world::{World, pause};
use crate::history::Fault;

/// Looks after dead letters now and then, and mostly when there are some.
pub(super) async fn operate(world: Arc<World>) {
    let until = Instant::now() + world.plan.troubled;
    let mut requests = world.dice.number(0..=4);
    while requests > 0 && Instant::now() < until {
        pause(world.dice.millis(0..=4_000)).await;
        if world.dice.chance(100) || !ids(&world, Status::Failed).is_empty() {
            request(&world).await;
            requests -= 1;
        }
    }
}

/// Asks for one thing, and some of it twice, at the same time or later, as an impatient person does.
async fn request(world: &Arc<World>) {
    let dice = &world.dice;
    let action = dice.pick(&[Action::Requeue, Action::Requeue, Action::Discard]);
    let by_filter = dice.chance(250);
    let (filter, named) = if by_filter { (topic(world), None) } else { named(world) };
    if filter.is_everything() {
        return;
    }
    if by_filter {
        world.met(Met::RequestByFilter);
    }
    let request = ask(world, action, filter, named);
    if dice.chance(400) {
        world.met(Met::RequestRepeated);
        let later = if dice.chance(400) { dice.millis(0..=50) } else { dice.millis(500..=8_000) };
        let again = async {
            pause(later).await;
            carry(world, &request).await;
        };
        tokio::join!(carry(world, &request), again);
    } else {
        carry(world, &request).await;
    }
}

/// Sends again whatever was set aside; returns how many that were.
pub(super) async fn requeue_everything(world: &Arc<World>) -> usize {
    let failed = ids(world, Status::Failed);
    if !failed.is_empty() {
        let request = ask(world, Action::Requeue, Filter::ids(failed.clone()), Some(failed.clone()));
        carry(world, &request).await;
    }
    failed.len()
}

fn ask(world: &World, action: Action, filter: Filter, ids: Option<Vec<Uuid>>) -> Request {
    let request = Request::new(action, filter, "ada", "the simulation says so").expect("a valid request");
    let request = request.with_id(world.dice.uuid());
    world.fault(Fault::Operator { request_id: request.id(), action, ids }, "");
    request
}

async fn carry(world: &Arc<World>, request: &Request) {
    // A request that failed on the way has done a part of what was asked, and that is on record.
    let _ = act(&Desk(world.clone()), request, Options::default(), |_, _| {}).await;
}

fn topic(world: &World) -> Filter {
    Filter { topic: Some(world.dice.pick(&topics().collect::<Vec<_>>()).to_owned()), ..Filter::default() }
}

/// Names some letters, and some events that are none.
fn named(world: &World) -> (Filter, Option<Vec<Uuid>>) {
    let dice = &world.dice;
    let mut some = dice.some(ids(world, Status::Failed), dice.number(0..=4) as usize);
    let others = if dice.chance(300) { dice.some(ids(world, Status::Pending), 2) } else { Vec::new() };
    if !others.is_empty() {
        world.met(Met::RequestNamedOthers);
    }
    some.extend(others);
    (Filter::ids(some.clone()), Some(some))
}

pub(super) fn ids(world: &World, status: Status) -> Vec<Uuid> {
    world.store.rows().into_iter().filter(|row| row.status == status).map(|row| row.event.id).collect()
}

#[async_trait]
impl DeadLetters for Desk {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        self.ask().await?.list(filter, page).await
    }

    async fn count(
        &self,
        filter: &Filter,
        window: Duration,
        after: Option<&Cursor>,
    ) -> Result<CountedPart, StoreError> {
        self.ask().await?.count(filter, window, after).await
    }

    async fn groups(&self, filter: &Filter, limit: u32) -> Result<Groups, StoreError> {
        self.ask().await?.groups(filter, limit).await
    }

    async fn show(&self, id: Uuid) -> Result<Option<Detail>, StoreError> {
        self.ask().await?.show(id).await
    }

    async fn history(&self, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
        self.ask().await?.history(id).await
    }

    async fn change(&self, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        self.0.bug.change(self.ask().await?, request, span).await
    }
}
