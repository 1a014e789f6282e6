//! Relays of both systems on one table, under load: replaced one by one, in both directions, and killed.

use std::collections::HashSet;

use nix::sys::signal::Signal;
use outbox_testkit::wait_until;

use super::earlier::{self, Produced, Worker};
use super::stage::Stage;
use crate::program::Relay;

const EVENTS: i64 = 20_000;
const POISON_EVERY: i64 = 100;
const MAX_ATTEMPTS: &str = "3";
/// In one claim, of either system.
const BATCH: &str = "100";
/// What a relay of theirs, and one of ours with its two workers, has claimed when it is killed, at most.
const CLAIMED: [usize; 2] = [100, 200];

async fn until_published(stage: &Stage, least: i64) {
    wait_until(&format!("{least} are published"), async || {
        (stage.count("status = 'PUBLISHED'").await >= least).then_some(())
    })
    .await;
}

/// Asks a relay to end, which it does without an error.
fn stop(mut relay: Relay) {
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}

fn kill(mut relay: Relay) {
    relay.signal(Signal::SIGKILL);
    relay.exit_code();
}

async fn assert_nothing_came_twice(stage: &Stage, when: &str) {
    let twice: Vec<_> = stage.copies().await.into_iter().filter(|(_, copies)| *copies > 1).collect();
    assert!(twice.is_empty(), "{when}: {twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_survive_a_move_and_its_return_under_load_with_poison_and_kills() {
    let stage = Stage::new().await.with(&[
        ("OUTBOX_MAX_ATTEMPTS", MAX_ATTEMPTS),
        ("OUTBOX_BATCH_SIZE", BATCH),
        ("OUTBOX_WORKERS", "2"),
        ("OUTBOX_RETRY_BACKOFF", "10ms"),
        ("OUTBOX_RETRY_BACKOFF_MAX", "20ms"),
    ]);
    stage.migrate_as_earlier().await;
    stage.ours(&["migrate", "up"]);
    let theirs = || earlier::relay(&stage.settings);
    let ours = || stage.relay_with(&crate::probe::with(&stage.settings, &[("OUTBOX_BATCH_SIZE_MAX", BATCH)]));

    let (first, second) = (theirs(), theirs());
    let (count, poison) = (EVENTS.to_string(), POISON_EVERY.to_string());
    let load =
        ["produce", "--quiet", "--transaction", "20", "--rate", "200", "--count", &count, "--poison-every", &poison];
    let mut producer = Worker::start(&load, &stage.settings);

    // To ours, replica by replica.
    until_published(&stage, 1_000).await;
    let third = ours();
    stop(first);
    until_published(&stage, 3_000).await;
    let fourth = ours();
    stop(second);
    until_published(&stage, 5_000).await;
    assert_nothing_came_twice(&stage, "on the way to ours").await;

    // And back.
    let fifth = theirs();
    stop(third);
    until_published(&stage, 7_000).await;
    let sixth = theirs();
    stop(fourth);
    until_published(&stage, 9_000).await;
    assert_nothing_came_twice(&stage, "on the way back").await;

    // One of each, and each dies twice.
    let mut theirs_now = fifth;
    stop(sixth);
    let mut ours_now = ours();
    for least in [11_000, 14_000] {
        until_published(&stage, least).await;
        kill(std::mem::replace(&mut theirs_now, theirs()));
        until_published(&stage, least + 1_500).await;
        kill(std::mem::replace(&mut ours_now, ours()));
    }

    let produced: Produced = producer.end();
    assert_eq!((produced.inserted, produced.failed), (EVENTS, 0));
    stage.until_count("status = 'PENDING'", 0).await;
    let poison = EVENTS / POISON_EVERY;
    let failed =
        format!("topic = '' AND status = 'FAILED' AND attempt_count = {MAX_ATTEMPTS} AND published_at IS NULL");
    assert_eq!(stage.count(&failed).await, poison, "poison ends exactly at the maximum, whoever tries it");
    assert_eq!(stage.count("status = 'PUBLISHED' AND attempt_count = 0").await, EVENTS - poison);

    let published =
        stage.sql.query("SELECT id::text FROM outbox_events WHERE status = 'PUBLISHED'", &[]).await.unwrap();
    let published: HashSet<String> = published.iter().map(|row| row.get(0)).collect();
    let copies = stage.copies().await;
    assert_eq!(copies.keys().cloned().collect::<HashSet<_>>(), published, "what is marked is on the stream");
    // Whoever dies gives back what it had claimed, sent or not; an earlier relay sends no id that NATS would know it by.
    let more: usize = copies.values().map(|copies| *copies as usize - 1).sum();
    let explained = 2 * (CLAIMED[0] + CLAIMED[1]);
    assert!(more <= explained, "{more} copies, of which four deaths explain {explained}");
}
