//! Thousands of runs of the relay in worlds where everything goes wrong, and the bugs that they have to find.
//!
//! `OUTBOX_SIM_SEED=<seed>` looks at one run closely, with the bug of `OUTBOX_SEEDED_BUG=<bug>` in it if that is set.
//! `OUTBOX_SIM_SEEDS=<count>` says how many runs there are, `OUTBOX_SIM_FROM=<seed>` where they begin. See
//! docs/reliability.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod bugs;
mod judge;
mod seeds;
