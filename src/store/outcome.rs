//! Outcomes of commands that are read again, not only shown in `history`.

/// Begins the outcome of an order that the cluster refused or did not answer; the reason follows.
pub const FAILED: &str = "failed";
/// It came too late to act on.
pub const TOO_OLD: &str = "too old to act on";
/// A kill came between, and it was not finished.
pub const INTERRUPTED: &str = "interrupted";
/// A newer command for the target had its turn before.
pub const OVERTAKEN: &str = "overtaken";
/// A newer command for the target came before the end of its rollout.
pub const SUPERSEDED: &str = "superseded";
/// Everything was as wanted.
pub const UNCHANGED: &str = "nothing to change";
/// Not done, because somebody else had a hand in it.
pub const LEFT_ALONE: &str = "left alone: changed since";
/// A question was answered.
pub const TOLD: &str = "told";
/// The target is not in the configuration any more.
pub const TARGET_GONE: &str = "the target is gone";
/// Alerts of the subscription are silent for a time, or told again.
pub const MUTED: &str = "done";
/// Begins the outcome of what was refused; why follows.
pub const REFUSED: &str = "refused: ";
/// Begins the outcome of a key that was accepted; its first letters follow.
pub const ACCEPTED: &str = "accepted ";

/// Letters of a key that tell it from others in a list; what proves anything is compared in full.
const OF_A_KEY: usize = 8;

/// The outcome of what was refused, with the reason in a word or two.
#[must_use]
pub fn refused(why: &str) -> String {
    format!("{REFUSED}{why}")
}

/// The outcome of a key that was accepted.
#[must_use]
pub fn accepted(key: &str) -> String {
    let first: String = key.chars().take(OF_A_KEY).collect();
    format!("{ACCEPTED}{first}…")
}

/// Says whether what ended so was not done, as far as is known, and may be done when it is asked for again.
#[must_use]
pub fn may_be_tried_again(outcome: &str) -> bool {
    outcome.starts_with(FAILED) || [TOO_OLD, INTERRUPTED].contains(&outcome)
}
