//! Real parts for tests: a control plane, a homeserver, people, and the binary itself.
//!
//! Tests share servers by address and never a client: every test has a runtime of its own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

#[path = "support/bot.rs"]
pub(crate) mod bot;
#[path = "support/control_plane.rs"]
pub(crate) mod control_plane;
#[path = "support/front.rs"]
pub(crate) mod front;
#[path = "support/house.rs"]
pub(crate) mod house;
#[path = "support/journal.rs"]
pub(crate) mod journal;
#[path = "support/kubelet.rs"]
pub(crate) mod kubelet;
#[path = "support/leash.rs"]
pub(crate) mod leash;
#[path = "support/manifests.rs"]
pub(crate) mod manifests;
#[path = "support/namespace.rs"]
pub(crate) mod namespace;
#[path = "support/node.rs"]
pub(crate) mod node;
#[path = "support/person.rs"]
pub(crate) mod person;
#[path = "support/places.rs"]
mod places;
#[path = "support/process.rs"]
pub(crate) mod process;
#[path = "support/provider.rs"]
pub(crate) mod provider;
#[path = "support/proxy.rs"]
pub(crate) mod proxy;
#[path = "support/subscribed.rs"]
pub(crate) mod subscribed;
#[path = "support/synapse.rs"]
pub(crate) mod synapse;

pub(crate) use places::environment;

/// A client for plain HTTP to the servers of the tests, and to the daemon's probes.
#[expect(
    clippy::disallowed_methods,
    reason = "what is asked here is on loopback: neither a CA nor a proxy stands before it"
)]
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::new()
}

/// Picks a port that nobody listens on, outside the range from which the kernel takes the ports of outgoing connections:
/// so it is still free when the server binds it, and when it is started again. No test gets another's.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let port = || rand::random_range(10_000..32_000);
    let is_free = |port: &u16| {
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        TcpListener::bind(("127.0.0.1", *port)).is_ok() && given.insert(*port)
    };
    std::iter::repeat_with(port).find(is_free).expect("endless")
}

/// Lower-case letters, enough to be unique: a name for a namespace, a room or a person.
pub(crate) fn unique(prefix: &str) -> String {
    let letters = std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z'))).take(10);
    format!("{prefix}-{}", letters.collect::<String>())
}
