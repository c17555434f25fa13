//! The words of `history`: a line for each, short enough for a phone.

use jiff::{Timestamp, tz::TimeZone};

use super::text::one_line;
use super::{Text, Words};

/// Most letters of what was written: a person may write thousands.
const ASKED: usize = 80;
/// Most letters of what came of it: a cluster may explain at length.
const ENDED: usize = 200;

/// One line of `history`.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// When it was sent, the last time.
    pub at: Timestamp,
    /// Who sent it. Of what was refused as unproven: in whose name.
    pub who: String,
    /// What was written.
    pub text: String,
    /// What came of it.
    pub outcome: String,
    /// How often the same came of the same.
    pub times: usize,
}

pub(super) fn words(deeds: &[Deed], zone: &TimeZone) -> Words {
    if deeds.is_empty() {
        return Text::new().say("Nothing was done here yet.").words();
    }
    let mut text = Text::new();
    for (i, deed) in deeds.iter().enumerate() {
        if i > 0 {
            text = text.line();
        }
        let at = deed.at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string();
        let (asked, ended) = (one_line(&deed.text, ASKED), one_line(&deed.outcome, ENDED));
        text = text.say(&at).say("  ").say(&deed.who).say(": ").code(&asked).say(" → ").say(&ended);
        if deed.times > 1 {
            text = text.say(&format!(" ({} times)", deed.times));
        }
    }
    text.words()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(text: &str, outcome: &str, times: usize) -> Deed {
        let (text, outcome) = (text.to_owned(), outcome.to_owned());
        Deed { at: Timestamp::UNIX_EPOCH, who: "@bob:hs".to_owned(), text, outcome, times }
    }

    #[test]
    fn a_line_says_when_who_what_and_how_it_ended() {
        let deeds = [deed("stop <web>", "refused: not allowed", 3), deed("start\nweb", "scaled 0 → 1, done in 5 s", 1)];
        let words = words(&deeds, &TimeZone::UTC);
        assert_eq!(
            words.plain,
            "1970-01-01 00:00 UTC  @bob:hs: stop <web> → refused: not allowed (3 times)\n\
             1970-01-01 00:00 UTC  @bob:hs: start web → scaled 0 → 1, done in 5 s"
        );
        assert!(words.html.contains("<code>stop &lt;web&gt;</code>"), "{}", words.html);
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = words(&[deed(&"web ".repeat(10_000), &"because ".repeat(1000), 1)], &TimeZone::UTC);
        assert!(long.plain.chars().count() < 400, "{}", long.plain);
    }
}
