//! What the tests of every crate share: suites that each store and each bus must pass, real servers on free ports,
//! scripted faults, a simulation, and a checker of what a run left behind.

pub mod authority;
pub mod bus_suite;
pub mod chaos;
pub mod checker;
mod claim;
pub mod faults;
pub mod history;
mod listen;
pub mod proxy;
pub mod servers;
pub mod simulation;
pub mod store_suite;
mod transcript;
mod wait;

pub use claim::claim_now;
pub use listen::listen;
pub use transcript::transcript;
pub use wait::wait_until;
