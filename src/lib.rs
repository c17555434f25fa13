#![recursion_limit = "256"]
pub mod chat;
pub mod cluster;
pub mod config;
pub mod retry;
pub mod store;
