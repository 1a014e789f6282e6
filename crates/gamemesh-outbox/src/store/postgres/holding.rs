//! Who holds what is due. An event that somebody else's transaction has locked is passed over by every claim, as long as that
//! lasts, and nothing fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use tracing::{info, warn};

use super::error::unavailable;
use super::holder::Holder;
use super::{PostgresStore, overview, sql};
use crate::store::StoreError;
use crate::troubles::{Trouble, TroubleKind, Troubles};

/// A transaction that is not so old is everybody's daily work, and so is an event that is not due for as long.
const HELD_FOR: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOKED_EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const DOING: &str = "cannot see who holds events";

/// Somebody, and how many of the oldest events that are due are held.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) holder: Holder,
    pub(super) events: i64,
}

impl Holding {
    /// Says what it holds, and who it is.
    pub(super) fn what(&self) -> String {
        format!("holds {} of the oldest thousand events that are due: {}", self.events, self.holder.who())
    }
}

/// Who held events when that was last looked for. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    looked: Arc<Mutex<Option<Instant>>>,
    troubles: Troubles,
}

impl Holdings {
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        self.troubles.list()
    }

    /// Says whether it is time to look, and takes it for done.
    fn is_due(&self) -> bool {
        let mut looked = self.looked.lock().expect("no code panics while it holds the lock");
        let is_due = looked.is_none_or(|at| at.elapsed() >= LOOKED_EVERY);
        if is_due {
            *looked = Some(Instant::now());
        }
        is_due
    }

    fn tell(&self, found: &[Holding]) {
        let gone = self.troubles.list().into_iter().map(|trouble| trouble.name);
        for name in gone.filter(|name| !found.iter().any(|holding| holding.holder.name() == *name)) {
            self.troubles.end(TroubleKind::Held, &name);
            info!(holder = name, "holds no event any more that is due");
        }
        for holding in found {
            let (name, end) = (holding.holder.name(), holding.holder.end().replace('\n', " "));
            let reason = format!("{}; hint: {end}", holding.what());
            if self.troubles.begin(TroubleKind::Held, &name, &reason) {
                warn!(holder = name, reason, "events that are due are held by somebody else");
            }
        }
    }
}

impl PostgresStore {
    /// Looks now and then who holds what is due. What cannot be seen is not told: claims and checks have better words for it.
    pub(super) async fn look_for_holders(&self) {
        if self.holdings.is_due()
            && let Ok(found) = self.holding_due(HELD_FOR, ANSWER_WITHIN).await
        {
            self.holdings.tell(&found);
        }
    }

    /// Lists whose transaction of more than that age holds what is due for longer than that.
    pub(super) async fn holding_due(
        &self,
        longer_than: Duration,
        within: Duration,
    ) -> Result<Vec<Holding>, StoreError> {
        let seconds = longer_than.as_secs_f64();
        let session = self.session().await?;
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&seconds, Type::FLOAT8), (&overview::APPLICATION, Type::TEXT)];
        let found = session.client().query_typed(sql::HOLDING_DUE, &params);
        let found = session.limited(DOING, within, "", found).await?;
        session.give_back();
        let holding = |row: &Row| Ok(Holding { holder: Holder::read(row)?, events: row.try_get("events")? });
        found.and_then(|rows| rows.iter().map(holding).collect()).map_err(|error| unavailable(DOING, error))
    }
}
