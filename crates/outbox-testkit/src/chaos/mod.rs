//! Real processes under random faults: PostgreSQL, NATS, relays and producers, each broken while it works, and everything
//! that was seen recorded for the [checker](crate::checker).
//!
//! A run has a seed, which decides which faults come and in what order; when exactly they strike is up to the machine.

mod bus;
mod faults;
mod lanes;
mod producers;
mod readiness;
mod refusals;
mod relays;
mod report;
mod rig;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

pub use self::bus::BusKind;
pub use self::faults::Kind;
pub use self::producers::{Producer, TOPIC};
pub use self::readiness::Readiness;
pub use self::relays::{Replica, Replicas};
use self::report::End;
pub use self::report::{ChaosReport, Recovery};
pub use self::rig::{Rig, RigConfig};
use crate::checker::check;
use crate::history::wall_clock;

/// The most that a relay may send of an event; a larger one becomes a dead letter.
pub const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// A run of random faults.
#[derive(Clone, Debug)]
pub struct ChaosConfig {
    /// What is broken.
    pub rig: RigConfig,
    /// How long faults come; then everything heals and has to come to rest.
    pub duration: Duration,
    /// Decides which faults come.
    pub seed: u64,
    /// How many producers work.
    pub producers: u32,
    /// The most events in one of their transactions.
    pub events_max: u64,
}

/// Carries out a run, checks its history, and says how it went. An error means that the run itself failed, for instance
/// because a server does not come back; what the relays did wrong is in the report.
pub async fn run(config: &ChaosConfig) -> Result<ChaosReport> {
    let mut random = fastrand::Rng::with_seed(config.seed);
    let began = wall_clock();
    let mut rig = Rig::start(&config.rig).await?;
    rig.start_replicas().await?;
    for number in 1..=config.producers {
        rig.add_producer(format!("producer-{number}"), fastrand::Rng::with_seed(random.u64(..)), config.events_max);
    }
    let calm = CancellationToken::new();
    // A fault that has begun when the time is over is carried to its end.
    let time = async {
        tokio::time::sleep(config.duration).await;
        calm.cancel();
        Ok(())
    };
    let looks = Arc::default();
    tokio::try_join!(lanes::all(&rig, &mut random, &calm), readiness::watch(&rig, &looks, &calm), time)?;
    let faulty_until = wall_clock();
    let (rest_after, memory_max) = rig.come_to_rest().await?;
    let history = rig.finish().await?;
    let checked = check(&history);
    let looks = std::mem::take(&mut *looks.lock().expect("nobody panics while looking"));
    let readiness = readiness::judge(&looks, &history.faults, began);
    let end = End { rest_after, memory_max, readiness };
    Ok(ChaosReport::new(config, &history, checked, began..faulty_until, end))
}
