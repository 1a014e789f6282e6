//! A big table of the earlier system, migrated while it works.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::earlier::{self, Produced, Worker};
use super::stage::Stage;
use crate::documents::{read, root};
use crate::probe::with;

const PENDING: i64 = 1_000;
/// What a write takes on a machine that builds indexes at the same time.
const BUSY: Duration = Duration::from_secs(2);

/// Most of them published long ago, as a table looks that nobody has pruned. The ids ascend, which fills it sooner.
const ROWS: &str = "
    INSERT INTO outbox_events (id, event_type, topic, payload, status, created_at, published_at, attempt_count, last_error)
    SELECT lpad(to_hex(number), 32, '0')::uuid, 'PlayerUpdated', 'events.player', '{\"player_id\": \"p\"}', state,
           at, CASE WHEN state = 'PUBLISHED' THEN at END, CASE WHEN state = 'FAILED' THEN 5 ELSE 0 END,
           CASE WHEN state = 'FAILED' THEN 'publish failed: max attempts exceeded' ELSE '' END
    FROM generate_series(1, 1000000) AS number,
    LATERAL (SELECT now() - interval '1 second' * (1000000 - number) AS at,
                    CASE number % 1000 WHEN 0 THEN 'PENDING' WHEN 1 THEN 'FAILED' ELSE 'PUBLISHED' END AS state) AS event";

/// Returns the statements of the first SQL block behind a text of the page.
fn statements(page: &str, after: &str) -> Vec<String> {
    let block = page.split_once(after).unwrap().1.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    block.split_terminator(";\n").map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_are_migrated_while_the_earlier_system_writes() {
    let stage = Stage::new().await;
    stage.migrate_as_earlier().await;
    stage.sql.batch_execute(ROWS).await.unwrap();
    let mut relay = earlier::relay(&stage.settings);
    let at_work = with(&stage.settings, &[("AUTO_MIGRATE", "false")]);
    let producer = Worker::start(&["produce", "--quiet", "--rate", "200"], &at_work);
    stage.until_count("status = 'PENDING' AND id < '00000000-0000-0000-0000-0000000f4241'", 0).await;

    let page = read(&root().join("docs/operations.md"));
    for statement in statements(&page, "<!-- A test runs this block") {
        stage.sql.batch_execute(&statement).await.unwrap();
    }
    let invalid = statements(&page, "A build that was interrupted");
    assert!(stage.sql.query(&invalid[0], &[]).await.unwrap().is_empty());
    let began = Instant::now();
    stage.ours(&["migrate", "up"]);
    let migrated = began.elapsed();

    // Both go on with the new schema.
    let so_far = stage.count("status = 'PUBLISHED'").await;
    outbox_testkit::wait_until("more is published", async || {
        (stage.count("status = 'PUBLISHED'").await > so_far + 200).then_some(())
    })
    .await;
    let produced: Produced = producer.stop();
    stage.until_count("status = 'PENDING'", 0).await;
    assert_eq!(produced.failed, 0);
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
    // pgx has prepared `SELECT *`, and the new columns end such a statement once, at a claim: nothing was sent yet.
    let printed = relay.everything_printed();
    let troubles: Vec<&str> = printed.lines().filter(|line| line.contains("\"error\"")).collect();
    let expected = |line: &&str| line.contains("cached plan must not change result type");
    assert!(troubles.iter().all(expected) && troubles.len() <= 2, "{troubles:?}");

    // A write waits behind a statement that waits for the table, or that has it. That is one of the block, which gives up
    // after its lock_timeout, or `migrate up`, which has the table no longer than it runs.
    let bound = migrated.max(Duration::from_secs(2)) + BUSY;
    let longest = Duration::from_millis(produced.longest_ms);
    assert!(longest < bound, "the longest write took {longest:?}, `migrate up` {migrated:?}");
    println!("the longest write took {longest:?}, `migrate up` {migrated:?}");

    let copies = stage.copies().await;
    assert_eq!(i64::try_from(copies.len()).unwrap(), PENDING + produced.inserted);
    assert_eq!(copies.values().max(), Some(&1));
    assert_eq!(stage.count("status = 'FAILED' AND attempt_count = 5").await, 1_000, "dead letters stay");
    stage.sql.batch_execute("TRUNCATE outbox_events").await.unwrap();
}
