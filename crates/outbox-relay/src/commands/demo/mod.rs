//! `outbox-relay demo`: the main job on embedded parts, with a check that nothing was lost.

mod audit;
mod screen;
mod shop;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::TryStreamExt;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::relay::{Backoff, Relay, RelayConfig, Watch};
use gamemesh_outbox::store::Store;
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
use gamemesh_outbox::telemetry::Telemetry;
use sqlx::SqlitePool;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::audit::{Ledger, Report};
use self::screen::{Numbers, Screen, summary};
use self::shop::{MESSAGE_BYTES_MAX, Shop};
use crate::http::{self, Access, AppState, Phase};
use crate::output::print;
use crate::report::CommandError;
use crate::settings::values::positive_duration;
use crate::signals;

/// How long the relay may take to finish after the shop has closed: the retries of poison, many times over.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to ask whether it has.
const FINISH_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How to run the demonstration.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the shop stays open: 10s, 5m, 1h30m
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    pub duration: Duration,
    /// Transactions a second
    #[arg(long, default_value_t = 200, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Goes on relaying and serving the page after the summary, until Ctrl-C
    #[arg(long)]
    pub keep_serving: bool,
    /// Port of the page on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 8085)]
    pub port: u16,
    /// Keeps the SQLite database in this file, which is created when missing; without it, a temporary one is used
    #[arg(long, value_name = "FILE")]
    pub database: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).ok_or_else(|| "expected a duration above 0, as 10s, 5m or 1h30m".to_owned())
}

/// Runs the demonstration; fails if its audit does.
pub(crate) async fn demo(args: DemoArgs) -> Result<(), CommandError> {
    let stop = signals::stop_on_signal()?;
    let listener = bind(args.port).await?;
    let address = listener.local_addr().map_err(|error| CommandError::failure("cannot serve the page", error))?;
    let (config, _folder) = database(args.database)?;
    let screen = Screen::new(args.duration);
    screen.say(&format!("A shop of players on SQLite ({}), its events on an in-process bus", config.path().display()));
    screen.say(&format!("Live on http://{address}"));
    // For this run alone: whoever sees the terminal may requeue and discard on the page.
    let token = Uuid::now_v7().simple().to_string();
    screen.say(&format!("Admin token of its page: {token}"));

    let stage = Stage::open(&config).await?;
    let finished = CancellationToken::new();
    let page = tokio::spawn(http::serve(listener, stage.app_state(&token), finished.clone().cancelled_owned()));
    let closing = async {
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(args.duration) => {} }
    };
    let ending = async |report: Report, open_for: Duration| {
        print(&summary(&report, open_for))?;
        if args.keep_serving && !stop.is_cancelled() {
            eprintln!("Still relaying, and serving http://{address}: Ctrl-C ends it");
            stop.cancelled().await;
        }
        Ok(report)
    };
    let ended = stage.play(args.rate, &screen, closing, ending).await;
    finished.cancel();
    page.await.map_err(|error| CommandError::failure("the page ended badly", error))?;
    verdict(&ended?)
}

fn verdict(report: &Report) -> Result<(), CommandError> {
    match report.problems() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(CommandError::failure("the audit failed", problems.join("; "))),
    }
}

async fn bind(port: u16) -> Result<TcpListener, CommandError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| {
        CommandError::failure(format!("cannot serve the page on {address}"), error).hint("--port chooses another port")
    })
}

/// Returns where the database is, and the folder that disappears with it if nobody wanted to keep it.
fn database(path: Option<PathBuf>) -> Result<(SqliteConfig, Option<TempDir>), CommandError> {
    if let Some(path) = path {
        return Ok((SqliteConfig::new(path).create_if_missing(true), None));
    }
    let folder = tempfile::Builder::new().prefix("outbox-demo-").tempdir();
    let folder = folder.map_err(|error| CommandError::failure("cannot create a temporary folder", error))?;
    Ok((SqliteConfig::new(folder.path().join("shop.db")).create_if_missing(true), Some(folder)))
}

/// Everything that takes part.
struct Stage {
    store: SqliteStore,
    bus: MemoryBus,
    telemetry: Telemetry,
    shop: Shop,
    ledger: Arc<Ledger>,
    /// For the audit, which reads the table as any other program would.
    table: SqlitePool,
}

impl Stage {
    async fn open(config: &SqliteConfig) -> Result<Self, CommandError> {
        let store = SqliteStore::open(config).await?;
        store.migrate_up().await?;
        let ledger = Arc::new(Ledger::default());
        Ok(Self {
            shop: Shop::open(config, ledger.clone()).await.map_err(shop_failed)?,
            store,
            bus: MemoryBus::with_message_bytes_max(MESSAGE_BYTES_MAX),
            telemetry: Telemetry::new("outbox-demo"),
            ledger,
            table: SqlitePool::connect_lazy_with(config.connect_options()),
        })
    }

    fn app_state(&self, token: &str) -> AppState {
        let access = Access::new(Some(token), Vec::new());
        let state = AppState::new("outbox-demo", self.telemetry.clone(), access);
        let (store, bus) = (Arc::new(self.store.clone()), Arc::new(self.bus.clone()));
        state.use_store(store.clone());
        let watch = Watch::new(store, bus, relay_config().poll_interval, self.telemetry.clone());
        state.tell(watch, Duration::ZERO);
        state.enter(Phase::Running);
        state
    }

    /// Runs the relay beside the shop, and until `ending` is done with the report.
    async fn play<T>(
        self,
        rate: u32,
        screen: &Screen,
        closing: impl Future<Output = ()>,
        ending: impl AsyncFnOnce(Report, Duration) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let stopping = CancellationToken::new();
        let relay = Relay::new(self.store.clone(), self.bus.clone(), relay_config(), self.telemetry.clone());
        let relay = async { Ok(relay.run(stopping.clone().cancelled_owned()).await?) };
        let story = async {
            let _stops_the_relay = stopping.clone().drop_guard();
            let open_for = self.trade_and_finish(rate, screen, closing).await?;
            let report = self.audit().await?;
            tokio::select! { ended = ending(report, open_for) => ended, never = self.consume() => match never {} }
        };
        tokio::try_join!(story, relay).map(|(ended, ())| ended)
    }

    /// Lets the shop trade until `closing`, then the relay finish; returns how long the shop was open.
    async fn trade_and_finish(
        &self,
        rate: u32,
        screen: &Screen,
        closing: impl Future<Output = ()>,
    ) -> Result<Duration, CommandError> {
        let opened = Instant::now();
        let perform = async {
            let closed = CancellationToken::new();
            let close = async {
                closing.await;
                closed.cancel();
                Ok(())
            };
            tokio::try_join!(self.shop.trade(rate, &closed), close).map_err(shop_failed)?;
            let open_for = opened.elapsed();
            self.finish().await.map(|()| open_for)
        };
        let numbers = || Numbers::new(opened.elapsed(), self.ledger.counts(), &self.telemetry.progress().borrow());
        let open_for = tokio::select! {
            performed = perform => performed,
            never = screen.show(numbers) => match never {},
            never = self.consume() => match never {},
            never = self.announce_first(screen, opened) => match never {},
        };
        screen.clear();
        open_for
    }

    /// Receives what the bus has, as a consumer would, so that the bus stays empty.
    async fn consume(&self) -> Infallible {
        let mut progress = self.telemetry.progress();
        loop {
            self.receive();
            progress.changed().await.expect("the telemetry outlives its watchers here");
        }
    }

    fn receive(&self) {
        for message in self.bus.drain() {
            self.ledger.received(&message);
        }
    }

    async fn announce_first(&self, screen: &Screen, opened: Instant) -> Infallible {
        let mut progress = self.telemetry.progress();
        if progress.wait_for(|progress| progress.published > 0).await.is_ok() {
            screen.say(&format!("First event published after {} ms", opened.elapsed().as_millis()));
        }
        std::future::pending().await
    }

    /// Waits until nothing is pending, or long enough.
    async fn finish(&self) -> Result<(), CommandError> {
        let deadline = Instant::now() + FINISH_TIMEOUT;
        while self.store.backlog().await?.pending > 0 && Instant::now() < deadline {
            tokio::time::sleep(FINISH_LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn audit(&self) -> Result<Report, CommandError> {
        self.receive();
        let business_rows = self.shop.rows_written().await.map_err(shop_failed)?;
        let unreadable = |error| CommandError::failure("cannot read the table to audit it", error);
        let mut auditor = self.ledger.audit();
        let mut rows = sqlx::query_as::<_, (String, String)>("SELECT id, status FROM outbox_events").fetch(&self.table);
        while let Some((id, status)) = rows.try_next().await.map_err(unreadable)? {
            if let Ok(id) = Uuid::try_parse(&id) {
                auditor.row(id, &status);
            }
        }
        Ok(auditor.finish(business_rows, self.bus.duplicates()))
    }
}

/// Poison is set aside at the third attempt, soon enough to be seen in a short run.
fn relay_config() -> RelayConfig {
    RelayConfig {
        attempts_max: 3,
        retry: Backoff { initial: Duration::from_millis(100), max: Duration::from_millis(400) },
        poll_interval: Duration::from_millis(100),
        backlog_interval: Duration::from_millis(500),
        ..RelayConfig::default()
    }
}

fn shop_failed(error: shop::ShopError) -> CommandError {
    CommandError::failure("the shop had to close", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays until the relay has set two events aside; those that are still retried then follow before the audit.
    async fn play_until_poison_is_set_aside(config: &SqliteConfig) -> (Report, MemoryBus) {
        let stage = Stage::open(config).await.unwrap();
        let bus = stage.bus.clone();
        let mut progress = stage.telemetry.progress();
        let closing = async { drop(progress.wait_for(|progress| progress.dead_lettered >= 2).await.unwrap()) };
        let screen = Screen::new(Duration::from_secs(1));
        let report = stage.play(2000, &screen, closing, async |report, _| Ok(report)).await.unwrap();
        (report, bus)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_committed_event_arrives_or_is_set_aside_and_no_other() {
        let (config, _folder) = database(None).unwrap();
        let (report, bus) = play_until_poison_is_set_aside(&config).await;
        assert_eq!(report.problems(), Vec::<String>::new());
        let counts = report.counts;
        assert!(report.dead_lettered >= 2 && counts.rolled_back >= 10, "{report:?}");
        assert_eq!(counts.committed, counts.delivered + report.dead_lettered);
        assert_eq!((counts.duplicates, report.waiting), (0, 0));
        assert!(bus.drain().is_empty(), "the consumer kept the bus empty");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_run_on_the_same_database_audits_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (config, _) = database(Some(folder.path().join("kept.db"))).unwrap();
        for _ in 0..2 {
            let (report, _) = play_until_poison_is_set_aside(&config).await;
            assert_eq!(report.problems(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_failed_audit_fails_the_command() {
        assert!(verdict(&Report::default()).is_ok());
        let report = Report { lost: 1, ..Report::default() };
        assert_eq!(verdict(&report).unwrap_err().line(), "the audit failed: 1 committed events were lost");
        assert!(summary(&report, Duration::from_secs(1)).contains("Audit FAILED: 1 committed events were lost."));
    }
}
