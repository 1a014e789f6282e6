//! Collectors: what turns what a source says into records.

pub mod bus;
pub mod metrics;
pub mod postgres;
pub mod producer;
pub mod relay;
mod test_decoding;
