//! Pilothouse runs your Kubernetes cluster from an end-to-end-encrypted Matrix room, and says what really happened.
//!
//! ```text
//!             Message              Request                     Order
//!  Matrix ──▶ chat ──▶ inbox ──▶ operator ──▶ policy ──▶ operator ──▶ cluster ──▶ Kubernetes
//!            usage ────────────────▲  │                                 │
//!            (timers, pushes) ─────┘  │◀──────────── Report ────────────┘
//!  Matrix ◀── chat ◀── outbox ◀── reply
//!
//!  inbox and outbox are tables of `store`: what came in and what must go out survive a kill at any instant
//! ```
//!
//! Everything that wants something passes one gate: [`operator`] asks [`policy`], and only an
//! [`Order`](policy::Order) moves the cluster or a pin. Decide (pure), do (IO) and tell (pure) are never mixed. The
//! modules stand below in reading order.

// matrix-sdk's futures nest deeper than the default of 128.
#![recursion_limit = "256"]

pub mod daemon;

pub mod message;

pub mod chat;
pub mod command;
pub mod policy;

pub mod operator;

pub mod cluster;
pub mod usage;

pub mod reply;

pub mod store;

pub mod check;
pub mod init;
pub mod subscription;
pub mod trust;

pub mod admin;
pub mod config;
pub mod file;
pub mod retry;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
