//! Many rows that cannot be written, rows that are written slowly, and what several relays make of it.

use std::time::Duration;

use outbox_testkit::servers::PostgresServer;
use outbox_testkit::wait_until;
use tokio::time::Instant;

use super::{NEIGHBOURS_OUT, Scene};

const REFUSE_BAD: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not this one''; END';
                          CREATE TRIGGER refuse BEFORE UPDATE ON outbox_events FOR EACH ROW WHEN (OLD.event_type = 'bad')
                              EXECUTE FUNCTION refuse()";

/// Inserts so many events, of which those are bad for which `is_bad` holds of their number, `n`.
async fn insert(scene: &Scene, count: usize, is_bad: &str) {
    scene
        .sql(&format!(
            "SELECT outbox_publish('events.player', CASE WHEN {is_bad} THEN 'bad' ELSE 'good' END, '1')
             FROM generate_series(1, {count}) AS n"
        ))
        .await;
}

async fn many_are_bad(server: &PostgresServer, is_bad: &str, good: u64) {
    let scene = Scene::new(server, "", |bus| bus).await;
    scene.sql(REFUSE_BAD).await;
    let began = Instant::now();
    insert(&scene, 500, is_bad).await;
    scene.until_published(is_bad, 1 + good).await;
    assert!(began.elapsed() < 2 * NEIGHBOURS_OUT, "{is_bad}: the good ones took {:?}", began.elapsed());
    for round in 1..=3 {
        // The bad ones come up again and again meanwhile.
        scene.until_tried(is_bad, 200).await;
        let began = Instant::now();
        scene.insert(20).await;
        scene.until_published(is_bad, 1 + good + 20 * round).await;
        assert!(began.elapsed() < NEIGHBOURS_OUT, "{is_bad}: later ones took {:?}", began.elapsed());
    }
    assert!(scene.relay.telemetry.verdict().is_ready(), "{is_bad}: {:?}", scene.relay.telemetry.verdict());
    assert!(scene.most_copies() <= 2, "{is_bad}: {} copies", scene.most_copies());
    scene.sql("DROP TRIGGER refuse ON outbox_events").await;
    let began = Instant::now();
    scene.until_published(is_bad, 561).await;
    assert!(began.elapsed() < Duration::from_secs(90), "{is_bad}: healed after {:?}", began.elapsed());
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_that_cannot_be_written_keep_no_other_whether_before_it_or_among_them() {
    let server = PostgresServer::shared();
    tokio::join!(
        many_are_bad(&server, "n % 2 = 0", 250),
        many_are_bad(&server, "n <= 400", 100),
        many_are_bad(&server, "n % 10 > 0", 50),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_written_slowly_are_settled_as_many_as_fit_and_once() {
    let server = PostgresServer::shared();
    let scene = Scene::new(&server, "", |bus| bus).await;
    scene
        .sql(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END';
             CREATE TRIGGER slowly BEFORE UPDATE ON outbox_events FOR EACH ROW EXECUTE FUNCTION slowly()",
        )
        .await;
    // All at once they would take longer than any statement may.
    scene.insert(45).await;
    scene.until_published("slowly", 46).await;
    scene.insert(45).await;
    scene.until_published("slowly", 91).await;
    // The first batch was published before anybody knew.
    assert!(scene.most_copies() <= 2, "{:?}", scene.copies());
    scene.relay.stop().await;
}

/// A trigger that asks somebody who never answers.
#[tokio::test(flavor = "multi_thread")]
async fn rows_over_which_the_database_hangs_are_named_and_the_others_go_on() {
    let server = PostgresServer::shared();
    let scene = Scene::new(&server, "", |bus| bus).await;
    scene
        .sql(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END';
             CREATE TRIGGER hang BEFORE UPDATE ON outbox_events FOR EACH ROW WHEN (OLD.event_type = 'bad')
                 EXECUTE FUNCTION hang()",
        )
        .await;
    insert(&scene, 20, "n % 4 = 0").await;
    scene.until_not_ready("it hangs", "are being written for").await;
    scene.until_published("the others", 16).await;
    wait_until("each is named", async || (scene.outcomes().len() == 5).then_some(())).await;
    scene.insert(20).await;
    scene.until_published("later ones", 36).await;
    assert!(scene.most_copies() <= 2, "{:?}", scene.copies());
    scene.sql("DROP TRIGGER hang ON outbox_events").await;
    scene.until_published("healed", 41).await;
    scene.until_ready("healed").await;
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_could_write_nothing_is_ready_again_when_another_one_has_taken_everything() {
    let server = PostgresServer::shared();
    let scene = Scene::new(&server, "", |bus| bus).await;
    let (other, _watch) = scene.another_relay();
    scene
        .sql("CREATE PUBLICATION all_of_it FOR TABLE outbox_events; ALTER TABLE outbox_events REPLICA IDENTITY NOTHING")
        .await;
    scene.insert(50).await;
    scene.until_not_ready("both", "replica identity").await;
    wait_until("the other one is not ready either", async || other.telemetry.verdict().store.is_down().then_some(()))
        .await;
    scene.until_tried("both", 20).await;
    scene.sql("ALTER TABLE outbox_events REPLICA IDENTITY DEFAULT").await;
    let began = Instant::now();
    scene.until_ready("healed").await;
    wait_until("the other one is ready", async || other.telemetry.verdict().is_ready().then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    wait_until("all are out", async || (scene.published() + other.progress.borrow().published >= 51).then_some(()))
        .await;
    assert!(scene.most_copies() <= 3, "{:?}", scene.copies());
    other.stop().await;
    scene.relay.stop().await;
}
