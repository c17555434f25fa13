//! The harness holds what it promises: real parts that answer, break and come back, and people who can talk.

#[path = "harness/control_plane.rs"]
mod control_plane;
#[path = "harness/homeserver.rs"]
mod homeserver;
#[path = "harness/people.rs"]
mod people;
#[path = "harness/process.rs"]
mod process;
