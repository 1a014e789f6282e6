//! Which fault comes when: relays, database, bus and operators are disturbed side by side, each by one fault at a time.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{BusKind, Kind, Rig};

/// Faults of one kind of target.
struct Lane {
    /// Seconds between two of them, in thousandths.
    gap: Range<u64>,
    /// What is drawn, and how often.
    kinds: &'static [(Kind, u32)],
}

const RELAYS: Lane = Lane {
    gap: 1_000..5_000,
    kinds: &[
        (Kind::KillRelay, 70),
        (Kind::KillEveryRelay, 4),
        (Kind::StopRelay, 10),
        (Kind::FreezeRelay, 4),
        (Kind::CutRelayFromDatabase, 4),
        (Kind::DeafenRelayToDatabase, 3),
        (Kind::CutRelayFromBus, 3),
        (Kind::DeafenRelayToBus, 3),
    ],
};

const DATABASE: Lane = Lane {
    gap: 12_000..36_000,
    kinds: &[
        (Kind::CrashDatabase, 12),
        (Kind::EndSessions, 2),
        (Kind::ReadOnlyDatabase, 1),
        (Kind::LockTable, 2),
        (Kind::UseUpConnections, 1),
        (Kind::Deadlock, 1),
        (Kind::RefuseOutcomes, 3),
        (Kind::RefuseSomeOutcomes, 4),
        (Kind::MoveTable, 2),
        (Kind::StormOfLocks, 2),
    ],
};

/// What can be done to either bus.
const REDIS: Lane = Lane {
    gap: 12_000..36_000,
    kinds: &[(Kind::KillBus, 8), (Kind::FreezeBus, 4), (Kind::SlowBus, 2), (Kind::SlowLink, 2)],
};

const NATS: Lane = Lane {
    gap: 12_000..36_000,
    kinds: &[
        (Kind::KillBus, 8),
        (Kind::FreezeBus, 4),
        (Kind::SlowBus, 2),
        (Kind::SlowLink, 2),
        (Kind::FillStream, 1),
        (Kind::DenyPublishing, 1),
        (Kind::AnswerInItsPlace, 3),
    ],
};

const OPERATOR: Lane = Lane { gap: 8_000..20_000, kinds: &[(Kind::Requeue, 3), (Kind::Discard, 1)] };

/// Disturbs everything until `calm`, and carries each fault that has begun to its end.
pub(super) async fn all(rig: &Rig, random: &mut fastrand::Rng, calm: &CancellationToken) -> Result<()> {
    let bus = match rig.bus_kind() {
        BusKind::Nats => NATS,
        BusKind::Redis => REDIS,
    };
    let mut next = || fastrand::Rng::with_seed(random.u64(..));
    tokio::try_join!(
        RELAYS.disturb(rig, next(), calm),
        DATABASE.disturb(rig, next(), calm),
        bus.disturb(rig, next(), calm),
        OPERATOR.disturb(rig, next(), calm),
        weigh(rig, calm),
    )?;
    Ok(())
}

impl Lane {
    async fn disturb(&self, rig: &Rig, mut random: fastrand::Rng, calm: &CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = calm.cancelled() => return Ok(()),
                () = sleep(Duration::from_millis(random.u64(self.gap.clone()))) => {}
            }
            rig.inject(self.draw(&mut random), &mut random).await?;
        }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> Kind {
        let weights: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut place = random.u32(..weights);
        for (kind, weight) in self.kinds {
            match place.checked_sub(*weight) {
                Some(rest) => place = rest,
                None => return *kind,
            }
        }
        unreachable!("the place is below the sum of all weights")
    }
}

async fn weigh(rig: &Rig, calm: &CancellationToken) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = calm.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        for replica in &rig.replicas {
            replica.weigh().await;
        }
    }
}
