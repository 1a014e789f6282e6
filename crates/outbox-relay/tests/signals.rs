//! Signals that people and supervisors send to a daemon: none of them costs a copy.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::outbox::Outbox;
use crate::program::{Relay, command, run_with_input, transcript};

const EVENTS: usize = 3_000;

/// Writes events into an outbox; each is one line of the relay's output.
fn emit(outbox: &Outbox) {
    let line = "{\"topic\":\"events.player\",\"event_type\":\"registered\",\"payload\":1}\n";
    let emitted = run_with_input(&["emit", "--file", "-"], &[("DATABASE_URL", &outbox.url())], &line.repeat(EVENTS));
    assert!(emitted.status.success(), "{}", transcript(&emitted));
}

fn sent(printed: &str) -> usize {
    printed.lines().filter(|line| line.contains("events.player.registered")).count()
}

#[test]
fn signals_that_ask_nothing_of_the_relay_are_told_and_cost_nothing() {
    let outbox = Outbox::new();
    emit(&outbox);
    let mut relay = outbox.relay(&[("OUTBOX_BATCH_SIZE", "10"), ("OUTBOX_BATCH_SIZE_MAX", "10")]);
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGALRM, "ALRM"),
        (Signal::SIGHUP, "HUP"),
    ] {
        relay.wait_for_stdout("events.player.registered");
        relay.signal(signal);
        relay.wait_for_log(&format!("\"signal\":\"{name}\""));
    }
    assert!(relay.get("/readyz").0.starts_with("HTTP/1.1 200"));
    // The one that asks to finish comes in the middle of the work as well.
    relay.signal(Signal::SIGQUIT);
    relay.wait_for_log("stopping");
    assert_eq!(relay.exit_code(), Some(0));
    let before = sent(&relay.everything_printed());
    assert!(before < EVENTS, "it was still at work");

    let mut successor = outbox.relay(&[]);
    for _ in before..EVENTS {
        successor.wait_for_stdout("events.player.registered");
    }
    successor.signal(Signal::SIGTERM);
    assert_eq!(successor.exit_code(), Some(0));
    assert_eq!(before + sent(&successor.everything_printed()), EVENTS, "nothing twice");
}

#[test]
fn nohup_works() {
    let outbox = Outbox::new();
    let relay = command(&["run"], &[("DATABASE_URL", &outbox.url()), ("EVENT_BUS", "stdout")]);
    let mut under = Command::new("nohup");
    under.arg(relay.get_program()).args(relay.get_args()).env_clear();
    under.envs(relay.get_envs().filter_map(|(name, value)| Some((name, value?))));
    under.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut relay = Relay::start_command(under);
    relay.wait_for_log("relay running");
    relay.signal(Signal::SIGHUP);
    relay.wait_for_log("going on");
    assert!(relay.get("/readyz").0.starts_with("HTTP/1.1 200"));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}

#[test]
fn a_relay_without_work_stops_at_each_signal_that_asks_it_to() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
        relay.wait_for_log("idle");
        relay.signal(Signal::SIGHUP);
        relay.wait_for_log("going on");
        relay.signal(signal);
        assert_eq!(relay.exit_code(), Some(0), "{signal}");
    }
}
