use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::replica::Replica;
use super::rules::{Mistake, Rule};
use super::watch::Watch;
use super::world::World;

/// After so long without trouble everything must have been claimed.
const DRAINED_WITHIN: Duration = Duration::from_secs(3600);

/// Runs the world of a seed, and returns whoever watched it.
pub(super) fn run(seed: u64, mistake: Option<Mistake>, tells: bool) -> Watch {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without any driver but that of time").block_on(async {
        let world = Arc::new(World::of(seed, mistake));
        world.server(|server| server.watch.tells = tells);
        let mut replicas = JoinSet::new();
        for number in 0..world.plan.replicas {
            replicas.spawn(replica(Arc::clone(&world), number));
        }
        tokio::select! {
            biased;
            () = storm_and_calm(&world) => {}
            ended = replicas.join_next() => panic!("a replica never ends: {ended:?}"),
        }
        world.server(|server| std::mem::take(&mut server.watch))
    })
}

/// Inserts everything, and waits until it is gone.
async fn storm_and_calm(world: &World) {
    let began = Instant::now();
    for producer in &world.plan.producers {
        sleep_until(began + producer.commits_at).await;
        world.server(|server| server.insert(producer.rows.clone()));
    }
    world.calms();
    world.server(|server| server.refuses_nothing = true);
    let calm = Instant::now();
    while world.server(|server| !server.queue.is_empty() && server.watch.broken.is_empty()) {
        sleep(Duration::from_millis(100)).await;
        if calm.elapsed() > DRAINED_WITHIN {
            world.server(|server| server.watch.broke(Rule::Drained, format!("{:?} are left", server.queue)));
        }
    }
}

/// Runs a replica, and another in its place when it crashes.
async fn replica(world: Arc<World>, number: usize) {
    loop {
        let replica = Arc::new(Replica::new(&world, number));
        let mut workers = JoinSet::new();
        for _ in 0..world.plan.workers {
            workers.spawn(Arc::clone(&replica).work());
        }
        let lives = if world.is_calm() { Duration::MAX } else { world.millis(0..=2 * world.plan.crash_after) };
        if let Ok(ended) = timeout(lives, workers.join_next()).await {
            panic!("a worker never ends: {ended:?}");
        }
        world.server(|server| server.watch.met("crashes"));
    }
}
