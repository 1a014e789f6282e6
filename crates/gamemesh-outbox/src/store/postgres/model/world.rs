use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

use super::fault::Fault;
use super::plan::Plan;
use super::rules::Mistake;
use super::server::Server;

/// Everything that a run is about.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) mistake: Option<Mistake>,
    rng: Mutex<Rng>,
    server: Mutex<Server>,
    connections: AtomicU32,
    /// Whether nothing goes wrong any more.
    calm: AtomicBool,
}

/// What happens to a statement.
pub(super) enum Fate {
    Well,
    Late(Duration),
    /// The server ends it.
    Ended(Fault),
    /// The connection is lost before it.
    Cut,
    /// The connection is lost after it.
    AnswerLost,
}

impl World {
    pub(super) fn of(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::of(&mut rng);
        let mut server = Server::new(plan.keeps_dead);
        server.ignores_locks = mistake == Some(Mistake::LocksIgnored);
        Self {
            plan,
            mistake,
            rng: Mutex::new(rng),
            server: Mutex::new(server),
            connections: AtomicU32::new(0),
            calm: AtomicBool::new(false),
        }
    }

    pub(super) fn server<R>(&self, work: impl FnOnce(&mut Server) -> R) -> R {
        work(&mut self.server.lock().expect("a broken rule is noted, and nothing panics"))
    }

    pub(super) fn next_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on nothing goes wrong.
    pub(super) fn calms(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    // --- Chance ------------------------------------------------------------------------------------------------------

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().expect("no code panics while it holds the lock")
    }

    pub(super) fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.rng().u64(range))
    }

    /// Says yes that many times in a thousand, and never when it is calm.
    pub(super) fn trouble(&self, per_mille: u32) -> bool {
        !self.is_calm() && self.rng().u32(0..1000) < per_mille
    }

    /// Draws one of the rows that were inserted so far.
    pub(super) fn any_id(&self) -> Option<Uuid> {
        let ids: Vec<Uuid> = self.server(|server| server.rows.iter().map(|row| row.id).collect());
        self.rng().choice(ids)
    }

    /// Draws what happens to a statement.
    pub(super) fn fate(&self, connection: u32) -> Fate {
        if self.is_calm() {
            return Fate::Well;
        }
        let (faults, late) = (self.plan.faults, self.plan.late);
        let drawn = self.rng().u32(0..10_000);
        let fate = match drawn {
            _ if drawn < faults => Fate::Cut,
            _ if drawn < 2 * faults => Fate::AnswerLost,
            _ if drawn < 3 * faults => {
                Fate::Ended(if drawn.is_multiple_of(2) { Fault::OutOfTime } else { Fault::Many })
            }
            _ if drawn < 4 * faults => Fate::Late(self.millis(1..=10_000)),
            _ if drawn < 4 * faults + late => return Fate::Late(self.millis(1..=5)),
            _ => return Fate::Well,
        };
        self.server(|server| {
            server.watch.blame(connection);
            server.watch.met("faults");
        });
        fate
    }

    /// Draws how long the server takes to learn that a connection is closed.
    pub(super) fn lag(&self) -> Duration {
        if self.trouble(100) { self.millis(0..=200) } else { Duration::ZERO }
    }
}
