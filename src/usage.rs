//! The subscription: how full its limits are, when they reset, and whether they last.
//!
//! ```text
//!  sources ──Snapshot──▶ watcher ──Sample──▶ decide ──▶ store ──▶ reply
//!                                             │
//!                                             └──▶ guard ──Request──▶ inbox
//! ```
//!
//! Sources speak with providers, [`bucket`] has what they say in one form, and everything that is decided from it is
//! pure: the time is a parameter, and a simulated year takes a second.

pub mod accuracy;
pub mod backtest;
pub mod bucket;
pub mod chart;
pub mod credential;
pub mod cycle;
pub mod decide;
pub mod digest;
pub mod forecast;
pub mod gate;
pub mod history;
pub mod overview;
pub mod plan;
pub mod simulate;
pub mod source;
pub mod sources;
pub mod threshold;
pub mod view;
pub mod watcher;
pub mod wire;

pub use bucket::{Bucket, Kind, Reading, Reset, Share, Snapshot, Source, Unit};
