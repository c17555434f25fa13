//! Every integration test, in one binary: linking matrix-sdk is dear.

#[path = "integration/harness.rs"]
mod harness;
#[path = "integration/sending.rs"]
mod sending;
#[path = "integration/session.rs"]
mod session;
#[path = "integration/support.rs"]
mod support;
#[path = "integration/sync.rs"]
mod sync;
#[path = "integration/trust.rs"]
mod trust;
