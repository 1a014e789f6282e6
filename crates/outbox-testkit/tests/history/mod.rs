//! The collectors, on the sources themselves.

mod buses;
mod files;
mod postgres;
mod relays;
