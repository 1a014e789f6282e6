//! Claims everything that is due in a SQLite database, says so on standard output, and holds it until it is killed:
//! what a relay is to the others at the moment it crashes.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use gamemesh_outbox::store::ClaimLimit;
use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
use outbox_testkit::claim_now;

#[tokio::main]
async fn main() -> Result<()> {
    let database = std::env::args_os().nth(1).context("expected the path of a database")?;
    let store = SqliteStore::open(&SqliteConfig::new(database)).await?;
    let limit = ClaimLimit {
        events: 1000,
        bytes: u64::MAX,
        any_size: true,
        event_bytes: u64::MAX,
        lifetime: Duration::from_secs(3600),
        except: Vec::new(),
        except_ids: Vec::new(),
    };
    let mut claim = claim_now(&store, &limit).await?.context("expected events to claim, got none")?;
    let mut output = std::io::stdout();
    writeln!(output, "claimed {}", claim.take_events().len())?;
    output.flush()?;
    std::future::pending().await
}
