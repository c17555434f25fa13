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

pub mod backtest;
pub mod bucket;
pub mod cycle;
pub mod decide;
pub mod forecast;
pub mod guard;
pub mod simulate;
pub mod threshold;

pub use bucket::{Bucket, Kind, Reading, Reset, Share, Snapshot, Source, Unit};
