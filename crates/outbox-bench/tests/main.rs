//! The program as a process: what it measures, prints and leaves behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers as well")]

mod bench;
mod help;
mod program;
