//! Small trouble: outcomes that the database refuses, a table that moves, locks that come and go, somebody else who answers.

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::faults::length;
use super::producers::TOPIC;
use super::rig::Rig;
use crate::history::{Fault, Nanos, Target, wall_clock};
use crate::wait_until;

/// Refuses what relays want to write of a row, by the last byte of its id: of all of them, or of one in 64.
const REFUSE: &str = "CREATE FUNCTION chaos_refuse() RETURNS trigger LANGUAGE plpgsql
                      AS $$ BEGIN RAISE 'an experiment refuses this row'; END $$;
                      CREATE TRIGGER chaos_refuse BEFORE UPDATE OR DELETE ON outbox_events FOR EACH ROW
                      WHEN (OLD.status = 'PENDING' AND get_byte(uuid_send(OLD.id), 15) < $below)
                      EXECUTE FUNCTION chaos_refuse()";
const ACCEPT: &str = "DROP TRIGGER chaos_refuse ON outbox_events; DROP FUNCTION chaos_refuse()";

impl Rig {
    /// What is refused for a row comes before any other row's good: neighbours have to go on.
    pub(super) async fn refuse_outcomes(&self, one_in: u32, random: &mut fastrand::Rng) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let sql = self.database.client().await;
        let at = wall_clock();
        sql.batch_execute(&REFUSE.replace("$below", &(256 / one_in).to_string())).await?;
        let at = self.begins(at);
        length(random, 1_000..6_000).await;
        sql.batch_execute(ACCEPT).await?;
        let whose = if one_in == 1 { "refused every outcome".to_owned() } else { format!("refused one in {one_in}") };
        self.record(at, Fault::Outage(Target::Database), whose);
        Ok(())
    }

    /// Records that a change of the table, begun then, took the table until now, from when on it counts.
    fn begins(&self, at: Nanos) -> Nanos {
        self.record(at, Fault::Outage(Target::Database), "had its table changed");
        wall_clock()
    }

    /// While the table is elsewhere no relay may start: it would say so and exit, as it should.
    pub(super) async fn move_table(&self, random: &mut fastrand::Rng) -> Result<()> {
        let _starting = self.starting.write().await;
        let _postgres = self.postgres.lock().await;
        for replica in &self.replicas {
            wait_until("the relay has begun to work", async || replica.works().await.then_some(())).await;
        }
        let sql = self.database.client().await;
        let at = wall_clock();
        sql.batch_execute("CREATE SCHEMA elsewhere; ALTER TABLE outbox_events SET SCHEMA elsewhere").await?;
        let at = self.begins(at);
        length(random, 500..3_000).await;
        sql.batch_execute("ALTER TABLE elsewhere.outbox_events SET SCHEMA public; DROP SCHEMA elsewhere").await?;
        self.record(at, Fault::Outage(Target::Database), "had its table moved");
        Ok(())
    }

    /// What a migration does that does not want to wait, again and again.
    pub(super) async fn storm_of_locks(&self) -> Result<()> {
        let _postgres = self.postgres.lock().await;
        let mut sql = self.database.client().await;
        let at = wall_clock();
        for _ in 0..30 {
            let tx = sql.transaction().await?;
            tx.batch_execute("SET LOCAL lock_timeout = '100ms'").await?;
            if tx.batch_execute("LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tx.rollback().await?;
        }
        self.record(at, Fault::Outage(Target::Database), "in a storm of locks");
        Ok(())
    }

    /// A service on the subjects of events answers each as a stream might: a relay that believes it loses events.
    pub(super) async fn answer_in_its_place(&self, random: &mut fastrand::Rng) -> Result<()> {
        const ANSWERS: [&str; 3] =
            ["ok", r#"{"stream":"ORDERS","seq":7}"#, r#"{"error":{"code":404,"description":"not found"}}"#];
        let client = self.bus.lock().await.client().await?;
        let mut asked = client.subscribe(format!("{TOPIC}.>")).await?;
        let (at, until) = (wall_clock(), Instant::now() + Duration::from_millis(random.u64(1_000..4_000)));
        let mut answered = 0_u64;
        while let Ok(message) = timeout(until.saturating_duration_since(Instant::now()), asked.next()).await {
            let Some(message) = message else { break };
            if let Some(reply) = message.reply {
                client.publish(reply, ANSWERS[random.usize(..ANSWERS.len())].into()).await?;
                answered += 1;
            }
        }
        self.record(
            at,
            Fault::Cut { relay: None, server: Target::Bus },
            format!("somebody else answered {answered} times"),
        );
        Ok(())
    }
}
