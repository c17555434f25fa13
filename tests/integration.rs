//! Every integration test, in one binary: linking matrix-sdk is dear.
#![expect(clippy::unwrap_used, reason = "all of this is tests, and clippy knows only their functions as such")]

#[path = "integration/alerts.rs"]
mod alerts;
#[path = "integration/checks.rs"]
mod checks;
#[path = "integration/cluster.rs"]
mod cluster;
#[path = "integration/demo.rs"]
mod demo;
#[path = "integration/drift.rs"]
mod drift;
#[path = "integration/expiry.rs"]
mod expiry;
#[path = "integration/faults.rs"]
mod faults;
#[path = "integration/figures.rs"]
mod figures;
#[path = "integration/gaps.rs"]
mod gaps;
#[path = "integration/guard.rs"]
mod guard;
#[path = "integration/harness.rs"]
mod harness;
#[path = "integration/history.rs"]
mod history;
#[path = "integration/image.rs"]
mod image;
#[path = "integration/init.rs"]
mod init;
#[path = "integration/kills.rs"]
mod kills;
#[path = "integration/listener.rs"]
mod listener;
#[path = "integration/logins.rs"]
mod logins;
#[path = "integration/logs.rs"]
mod logs;
#[path = "integration/losses.rs"]
mod losses;
#[path = "integration/machine.rs"]
mod machine;
#[path = "integration/manifests.rs"]
mod manifests;
#[path = "integration/network.rs"]
mod network;
#[path = "integration/others.rs"]
mod others;
#[path = "integration/parts.rs"]
mod parts;
#[path = "integration/program.rs"]
mod program;
#[path = "integration/races.rs"]
mod races;
#[path = "integration/recovery.rs"]
mod recovery;
#[path = "integration/refusals.rs"]
mod refusals;
#[path = "integration/reload.rs"]
mod reload;
#[path = "integration/replies.rs"]
mod replies;
#[path = "integration/roles.rs"]
mod roles;
#[path = "integration/secrets.rs"]
mod secrets;
#[path = "integration/sending.rs"]
mod sending;
#[path = "integration/session.rs"]
mod session;
#[path = "integration/structure.rs"]
mod structure;
#[path = "integration/subcommands.rs"]
mod subcommands;
#[path = "integration/subscription.rs"]
mod subscription;
#[path = "integration/support.rs"]
mod support;
#[path = "integration/sync.rs"]
mod sync;
#[path = "integration/trust.rs"]
mod trust;
#[path = "integration/turns.rs"]
mod turns;
#[path = "integration/typing.rs"]
mod typing;
#[path = "integration/usage.rs"]
mod usage;
#[path = "integration/volume.rs"]
mod volume;
#[path = "integration/vouching.rs"]
mod vouching;
#[path = "integration/waiting.rs"]
mod waiting;
#[path = "integration/whole.rs"]
mod whole;
