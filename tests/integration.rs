//! Every integration test, in one binary: linking matrix-sdk is dear.
