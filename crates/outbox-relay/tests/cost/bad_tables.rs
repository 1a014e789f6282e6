//! What a claim costs on tables as they are on bad days, next to a fresh one.

use std::fmt::Write as _;
use std::time::Duration;

use gamemesh_outbox::store::postgres::PostgresStore;
use gamemesh_outbox::store::{ClaimLimit, OnPublished, Outcome, SettlePolicy};
use outbox_testkit::claim_now;

use crate::outbox::{Outbox, counting_server};
use crate::reference::ADVICE;

/// Events of one claim.
const BATCH: u32 = 100;
const CLAIMS: u32 = 20;
/// Some are left when the last claim is done.
const EVENTS: u32 = (CLAIMS + 5) * BATCH;
/// Blocks next to a fresh table.
const RATIO_MAX: f64 = 1.2;

#[tokio::test]
async fn a_claim_costs_the_same_on_a_table_of_bad_days() {
    let server = counting_server().await;
    let fresh = Outbox::on(&server).await;
    fresh.fill(EVENTS).await;
    let fresh = blocks(&fresh).await;

    let backlog = Outbox::on(&server).await;
    backlog.fill(100_000).await;

    let published = Outbox::on(&server).await;
    published.fill_with(100_000, "status, published_at", "'PUBLISHED', now()").await;
    published.fill(EVENTS).await;

    let poison = Outbox::on(&server).await;
    poison.fill_with(10_000, "status, attempt_count", "'FAILED', 5").await;
    poison.fill_with(10_000, "available_at, attempt_count", "now() + interval '1 hour', 4").await;
    poison.fill(EVENTS).await;

    // The server must keep every row that this transaction could still see, and with it what points there in indexes.
    let pinned = Outbox::on(&server).await;
    let reader = pinned.database.client().await;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_events").await.unwrap();
    pinned.fill(30_000).await;
    pinned.sql.batch_execute("UPDATE outbox_events SET status = 'PUBLISHED', published_at = now()").await.unwrap();
    pinned.fill(EVENTS).await;

    let tables = [
        ("100,000 events wait", backlog),
        ("100,000 published rows are kept", published),
        ("20,000 poison events wait or are set aside", poison),
        ("30,000 events went through beside an open transaction", pinned),
    ];
    let mut problems = String::new();
    for (table, outbox) in tables {
        let blocks = blocks(&outbox).await;
        let ratio = blocks / fresh;
        if ratio > RATIO_MAX {
            writeln!(
                problems,
                "  where {table}: measured {blocks:.2} blocks for an event, on a fresh table {fresh:.2}; the ratio is \
                 {ratio:.2}, allowed {RATIO_MAX}"
            )
            .unwrap();
        }
    }
    assert!(problems.is_empty(), "claims are dear on bad tables:\n{problems}{ADVICE}");
}

/// Claims and settles batch by batch, and returns how many blocks an event takes: no more in three batches of four. A
/// claim that looks from the start of the queue may take more; the store gives a small share of its time to these.
async fn blocks(outbox: &Outbox) -> f64 {
    outbox.vacuum().await;
    let store = outbox.store();
    let mut blocks = Vec::new();
    let mut before = outbox.counters().await["blocks"];
    for _ in 0..CLAIMS {
        carry_batch(&store).await;
        let after = outbox.counters().await["blocks"];
        blocks.push((after - before) / f64::from(BATCH));
        before = after;
    }
    blocks.sort_by(f64::total_cmp);
    blocks[blocks.len() * 3 / 4]
}

async fn carry_batch(store: &PostgresStore) {
    let lifetime = Duration::from_secs(60);
    let limit = ClaimLimit {
        events: BATCH,
        bytes: 4 << 20,
        any_size: true,
        event_bytes: 1 << 20,
        lifetime,
        except: vec![],
        except_ids: vec![],
    };
    let policy = SettlePolicy { attempts_max: 0, on_published: OnPublished::Mark };
    let claim = claim_now(store, &limit).await.unwrap().expect("due events");
    let settled = claim.settle(vec![Outcome::Published; BATCH as usize], &policy).await.unwrap();
    assert_eq!(settled.published, u64::from(BATCH));
}
