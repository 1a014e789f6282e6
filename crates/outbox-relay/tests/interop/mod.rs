//! The earlier system and ours on one table and one bus: what moves over, and back.

mod earlier;
mod messages;
mod million;
mod moving_over;
mod schema;
mod side_by_side;
mod stage;
