//! Relays committed outbox events from a database to a message bus.

use std::process::ExitCode;

fn main() -> ExitCode {
    outbox_relay::main()
}
