use std::sync::Arc;

use gamemesh_outbox::store::memory::MemoryTransaction;
use gamemesh_outbox::{Carrier, NewEvent, OutboxPublisher, OutboxTransaction};

use super::met::Met;
use super::world::{World, pause};
use crate::history::{Inserted, Payload, Stored, Transaction, TransactionOutcome};

const TOPICS: [&str; 3] = ["events.player", "events.match", "events.shop"];
const TYPES: [&str; 3] = ["registered", "ended", ""];

/// What no relay may touch: order of keys, spaces, numbers that no machine type holds, keys that come twice.
const PAYLOADS: [&str; 8] = [
    "{}",
    r#"{"b": 1, "a": 2}"#,
    r#"{"n":12345678901234567890123456789.1230}"#,
    r#"{"n":1e400}"#,
    r#"{"a":1,"a":2}"#,
    r#"["\u00e9", "é",  null ]"#,
    r#""}\"{""#,
    "[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]",
];

pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    TOPICS.into_iter()
}

/// Inserts events in one transaction after the other, some of which end badly.
pub(super) async fn produce(world: Arc<World>, number: u64) {
    let name = format!("producer-{number}");
    let transactions = world.plan.transactions;
    let pace = world.plan.troubled.as_millis() as u64 * 2 / transactions.max(1);
    for number in 1..=transactions {
        pause(world.dice.millis(0..=pace)).await;
        let outcome = match world.dice.number(0..=9) {
            0 => TransactionOutcome::Aborted,
            _ if world.goes_wrong(Met::ProducerDied) => TransactionOutcome::Unknown,
            _ => TransactionOutcome::Committed,
        };
        transact(&world, &name, number, outcome).await;
    }
}

/// Inserts a few events more, for whoever is left to publish.
pub(super) async fn produce_last(world: &World) {
    for number in 1..=3 {
        transact(world, "last-producer", number, TransactionOutcome::Committed).await;
    }
}

async fn transact(world: &World, producer: &str, number: u64, outcome: TransactionOutcome) {
    let began = world.clock.nanos();
    let mut tx = world.store.begin();
    let mut events = Vec::new();
    for _ in 0..world.dice.pick(&[1, 1, 2, 3, 8]) {
        events.push(insert(world, &mut tx).await);
        world.store_latency().await;
    }
    let commits = match outcome {
        TransactionOutcome::Committed => true,
        TransactionOutcome::Aborted => false,
        TransactionOutcome::Unknown => world.dice.chance(500),
    };
    if commits {
        tx.commit();
        events.iter_mut().for_each(|event| event.stored = stored(world, event));
    } else {
        drop(tx);
    }
    world.store_latency().await;
    let at = world.clock.nanos();
    let producer = producer.to_owned();
    world.recorder.transaction(Transaction { at, began, producer, number, outcome, events });
}

fn stored(world: &World, event: &Inserted) -> Option<Stored> {
    let row = world.store.row(event.id)?;
    Some(Stored { payload: Payload::of(&row.event.payload), created_at: row.event.created_at })
}

async fn insert(world: &World, tx: &mut MemoryTransaction) -> Inserted {
    let dice = &world.dice;
    let poison = dice.chance(world.plan.poison_rate).then(|| poison(world));
    let (mut topic, mut event_type) = (dice.pick(&TOPICS), dice.pick(&TYPES));
    let mut payload = dice.pick(&PAYLOADS).to_owned();
    match poison {
        Some(Met::PoisonByName) => {
            (topic, event_type) =
                dice.pick(&[("events.*", ""), ("events..x", ""), ("$JS.API", ""), ("events.a", "b c")])
        }
        Some(Met::PoisonBySize) => payload = sized(world.plan.payload_bytes_max() as usize + 1),
        _ => {}
    }
    let mut event = NewEvent::from_json(topic, event_type, payload).expect("JSON").with_id(dice.uuid());
    if dice.chance(400) {
        event = event.key(format!("player-{}", dice.number(1..=9)));
    }
    for name in dice.some(vec!["Tenant", "x-request", "Region"], dice.number(0..=2) as usize) {
        event = event.header(name, dice.number(0..=99).to_string());
    }
    if poison == Some(Met::PoisonByBusLimit) {
        let trace = Carrier::from_iter([("filler".to_owned(), "x".repeat(world.plan.message_bytes_max))]);
        event = event.carrier(trace);
    } else if dice.chance(500) {
        event = event.carrier(carrier(world));
    }
    let inserted = Inserted { poison: poison.is_some(), ..Inserted::of(&event) };
    if let Some(poison) = poison {
        world.met(poison);
        if poison == Met::PoisonByRule && !world.state().healed {
            world.state().rejected.insert(event.id());
        }
        // Whoever writes such a row goes around the library.
        tx.insert_events(&[event]).await.expect("a transaction in memory");
    } else {
        OutboxPublisher::default().publish(tx, event).await.expect("a valid event");
    }
    inserted
}

/// Draws a kind of poison. Without a maximum of attempts only one that is cured in the end, or nothing would ever be at
/// rest.
fn poison(world: &World) -> Met {
    if world.plan.policy.attempts_max == 0 {
        return Met::PoisonByRule;
    }
    world.dice.pick(&[
        Met::PoisonByRule,
        Met::PoisonByRule,
        Met::PoisonByRule,
        Met::PoisonByName,
        Met::PoisonBySize,
        Met::PoisonByBusLimit,
    ])
}

fn sized(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

fn carrier(world: &World) -> Carrier {
    let dice = &world.dice;
    let (trace, span) = (dice.uuid().simple().to_string(), dice.number(1..=u64::MAX));
    let mut entries = vec![("traceparent".to_owned(), format!("00-{trace}-{span:016x}-01"))];
    if dice.chance(300) {
        entries.push(("tracestate".to_owned(), format!("vendor={}", dice.number(0..=99))));
    }
    if dice.chance(200) {
        entries.push(("baggage".to_owned(), "tier=gold".to_owned()));
    }
    if dice.chance(200) {
        entries.push(("other".to_owned(), "kept in the envelope".to_owned()));
    }
    entries.into_iter().collect()
}
