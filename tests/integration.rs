//! Every integration test, in one binary: linking matrix-sdk is dear.

#[path = "integration/harness.rs"]
mod harness;
#[path = "integration/image.rs"]
mod image;
#[path = "integration/manifests.rs"]
mod manifests;
#[path = "integration/support.rs"]
mod support;
