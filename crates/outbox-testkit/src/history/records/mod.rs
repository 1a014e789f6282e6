//! One file for each source.

pub(super) mod bus;
pub(super) mod database;
pub(super) mod facts;
pub(super) mod faults;
pub(super) mod producers;
pub(super) mod relays;
