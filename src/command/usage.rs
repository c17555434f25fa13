//! What people ask of the subscription.

use jiff::SignedDuration;

use super::{Mistake, Verb, surplus};

/// What to know or do about the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// `usage`: how full the limits are.
    Show,
    /// `usage now`: the same, freshly asked.
    Now,
    /// `usage chart [7d]`: a picture of so much time.
    Chart(SignedDuration),
    /// `usage accuracy`: forecasts held against what came.
    Accuracy,
    /// `usage mute 3h`: silence for so long; zero takes it back.
    Mute(SignedDuration),
}

/// Span of a chart that names none.
const CHART: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Longest span of a chart: so long samples are kept.
const LONGEST_CHART: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Longest silence: a forgotten one ends by itself.
const LONGEST_MUTE: SignedDuration = SignedDuration::from_hours(24 * 14);

/// Reads what follows the verb.
pub(super) fn read(words: &[&str]) -> Result<Usage, Mistake> {
    let Some((first, rest)) = words.split_first() else { return Ok(Usage::Show) };
    let (usage, rest) = match (first.to_lowercase().as_str(), rest) {
        ("now", rest) => (Usage::Now, rest),
        ("accuracy", rest) => (Usage::Accuracy, rest),
        ("chart", []) => (Usage::Chart(CHART), rest),
        ("chart", [time, rest @ ..]) => (
            Usage::Chart(
                span(time, LONGEST_CHART)
                    .filter(SignedDuration::is_positive)
                    .ok_or_else(|| Mistake::BadTime((*time).to_owned()))?,
            ),
            rest,
        ),
        ("mute", [time, rest @ ..]) => {
            (Usage::Mute(span(time, LONGEST_MUTE).ok_or_else(|| Mistake::BadTime((*time).to_owned()))?), rest)
        }
        _ => return Err(surplus(Verb::Usage, first)),
    };
    rest.first().map_or(Ok(usage), |word| Err(surplus(Verb::Usage, word)))
}

/// Reads `7d`, `3h`, `30m` or a lone `0`.
fn span(word: &str, longest: SignedDuration) -> Option<SignedDuration> {
    if word == "0" {
        return Some(SignedDuration::ZERO);
    }
    let (number, unit) = word.split_at(word.find(|c: char| !c.is_ascii_digit())?);
    let number: i64 = number.parse().ok()?;
    let seconds = match unit.to_lowercase().as_str() {
        "d" => 86_400,
        "h" => 3_600,
        "m" | "min" => 60,
        _ => return None,
    };
    let span = SignedDuration::from_secs(number.checked_mul(seconds)?);
    (span <= longest).then_some(span)
}
