//! Behaviour of the library against real servers and scripted faults.

mod bus;
mod relay;
mod tracing;
