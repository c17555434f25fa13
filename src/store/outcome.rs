//! Outcomes of commands that are read again, not only shown in `history`.

/// Begins the outcome of an order that the cluster refused or did not answer; the reason follows.
pub const FAILED: &str = "failed";
/// It came too late to act on.
pub const TOO_OLD: &str = "too old to act on";
/// A kill came between, and it was not finished.
pub const INTERRUPTED: &str = "interrupted";
/// A newer command was done before.
pub const OVERTAKEN: &str = "overtaken";
/// Everything was as wanted.
pub const UNCHANGED: &str = "nothing to change";
/// Not done, because somebody else had a hand in it.
pub const LEFT_ALONE: &str = "left alone: changed since";

/// Says whether what ended so was not done, as far as is known, and may be done when it is asked for again.
#[must_use]
pub fn may_be_tried_again(outcome: &str) -> bool {
    outcome.starts_with(FAILED) || [TOO_OLD, INTERRUPTED].contains(&outcome)
}
