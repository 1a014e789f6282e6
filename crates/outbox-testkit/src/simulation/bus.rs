use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::{BusError, BusErrorKind, BusPublisher, Patience, Receipt, Terms};
use tokio::sync::mpsc;

use super::met::Met;
use super::process::Process;
use super::world::{World, pause};
use crate::history::collect;

/// The bus as one process sees it: an adapter, a network, and a server that goes on without them.
#[derive(Debug)]
pub(super) struct SimBus {
    pub world: Arc<World>,
    pub process: Arc<Process>,
}

/// Receipts as they come in, each with the place of its event.
type Answer = mpsc::UnboundedSender<(usize, Receipt)>;

/// How one message fares.
enum Way {
    Arrives,
    /// It never reaches the server.
    Lost,
    /// It is stored, and the acknowledgement is lost.
    AnswerLost,
    /// It is stored long after everybody gave up waiting.
    Late,
}

#[async_trait]
impl BusPublisher for SimBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let patience = Patience::new(events, Terms::of(self.world.plan.publish_timeout()));
        self.publish_patiently(events, &patience).await
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let (world, process) = (&self.world, &self.process);
        world.step(process, Met::KilledBeforePublish).await;
        world.bus_latency().await;
        if process.cut.load(Ordering::Relaxed) {
            // Nobody says no: nothing comes back at all.
            patience.over().await;
            process.gate().await;
            return fail(events, BusErrorKind::Unknown, "no answer in time");
        }
        if world.state().bus_down > 0 {
            world.met(Met::BusRefused);
            process.gate().await;
            return fail(events, BusErrorKind::Unavailable, "connection refused");
        }
        let (answer, mut answers) = mpsc::unbounded_channel();
        tokio::spawn(serve(world.clone(), process.clone(), events.to_vec(), answer));
        let mut receipts = fail(events, BusErrorKind::Unknown, "no answer in time");
        let mut over = std::pin::pin!(patience.over());
        loop {
            tokio::select! {
                biased;
                answer = answers.recv() => {
                    let Some((place, receipt)) = answer else { break };
                    patience.answered(place, receipt.is_ok());
                    receipts[place] = receipt;
                }
                // What is there counts.
                () = &mut over => break,
            }
        }
        world.step(process, Met::KilledAfterPublish).await;
        if world.goes_wrong(Met::ReceiptDropped) {
            receipts.pop();
        }
        receipts
    }
}

fn fail(events: &[Event], kind: BusErrorKind, message: &str) -> Vec<Receipt> {
    events.iter().map(|_| Err(BusError::new(kind, message))).collect()
}

/// What the network and the server do with a batch, whatever becomes of its relay meanwhile.
async fn serve(world: Arc<World>, process: Arc<Process>, events: Vec<Event>, answer: Answer) {
    if world.goes_wrong(Met::SlowBatch) {
        let most = world.plan.publish_timeout().as_millis() as u64;
        pause(world.dice.millis(0..=most)).await;
    }
    let mut unanswered = false;
    for (place, event) in events.into_iter().enumerate() {
        world.bus_latency().await;
        while world.state().bus_frozen > 0 {
            pause(Duration::from_millis(50)).await;
        }
        let fatal = !world.state().healed && world.dice.chance(world.plan.kill_rate);
        if fatal && !process.is_dead() {
            world.kill(&process, Met::KilledWhilePublishing);
        }
        if !world.state().healed && world.dice.chance(world.plan.stop_rate) {
            world.met(Met::StoppedWhilePublishing);
            process.stop();
        }
        // What a dead relay had not written yet is never sent.
        if process.is_dead() && world.dice.chance(500) {
            return;
        }
        let (way, topic) = (world.way(), event.topic.clone());
        let receipt = match way {
            Way::Arrives | Way::AnswerLost => Some(world.accept(&event).await),
            Way::Lost => None,
            Way::Late => {
                let (world, late) = (world.clone(), world.dice.millis(500..=4_000));
                tokio::spawn(async move {
                    pause(late).await;
                    world.accept(&event).await.ok();
                });
                None
            }
        };
        match receipt.filter(|_| matches!(way, Way::Arrives) && !world.is_mute(&topic)) {
            // The relay may have taken what there was.
            Some(receipt) => drop(answer.send((place, receipt))),
            None => unanswered = true,
        }
    }
    if unanswered {
        // An adapter waits for every answer.
        answer.closed().await;
    }
}

impl World {
    /// Says whether the stream of a topic stores what it gets, and says nothing.
    fn is_mute(&self, topic: &str) -> bool {
        self.state().mute_topics.iter().any(|mute| mute == topic)
    }

    fn way(&self) -> Way {
        if self.goes_wrong(Met::MessageLost) {
            Way::Lost
        } else if self.goes_wrong(Met::AnswerLost) {
            Way::AnswerLost
        } else if self.goes_wrong(Met::StoredLate) {
            Way::Late
        } else {
            Way::Arrives
        }
    }

    /// The server takes one message, or says why not. Whatever it stores is on record.
    async fn accept(&self, event: &Event) -> Receipt {
        let refused = {
            let state = self.state();
            if state.bus_down > 0 {
                Some((BusErrorKind::Unavailable, "shutting down"))
            } else if state.missing_topics.contains(&event.topic) {
                Some((BusErrorKind::NoRoute, "no stream matches subject"))
            } else if state.rejected.contains(&event.id) {
                Some((BusErrorKind::Rejected, "a rule of the bus"))
            } else {
                None
            }
        };
        if let Some((kind, message)) = refused {
            if kind == BusErrorKind::Rejected {
                self.met(Met::RejectedByRule);
            }
            return Err(BusError::new(kind, message));
        }
        let receipt = self.bus.publish(std::slice::from_ref(event)).await.remove(0);
        for message in self.bus.drain() {
            let position = {
                let mut state = self.state();
                state.position += 1;
                state.position
            };
            self.recorder.delivery(collect::bus::memory(&message, self.clock.nanos(), position));
        }
        receipt
    }
}
