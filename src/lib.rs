#![recursion_limit = "256"]
pub mod chat;
pub mod cluster;
pub mod command;
pub mod config;
pub mod policy;
pub mod reply;
pub mod store;
