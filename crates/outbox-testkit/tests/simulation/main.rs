//! Thousands of runs of the relay in worlds where everything goes wrong, and the bugs that they have to find.
//!
//! `OUTBOX_SIM_SEED=<seed>` looks at one run closely, `OUTBOX_SIM_SEEDS=<count>` says how many there are,
//! `OUTBOX_SIM_FROM=<seed>` where they begin. See docs/reliability.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod judge;
mod seeds;
