//! What the usage guard says.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::text::{Text, Words};
use super::usage::dated;
use crate::cluster::Target;
use crate::usage::guard::{Keeper, News, Notice, Reason};

pub(super) fn words(notice: &Notice, zone: &TimeZone) -> Words {
    // With the day: these words may wait for a room, for the morning, for a homeserver.
    let time = |at: Timestamp| dated(at, zone);
    let many = notice.targets.len() > 1;
    let them = if many { "them" } else { "it" };
    let command =
        |verb: &str| notice.targets.first().map_or_else(|| verb.to_owned(), |(name, _)| format!("{verb} {name}"));
    // What it stopped stays so.
    let left = |text: Text| {
        let text = text.say("the rule ").strong(&notice.rule).say(" will not start ");
        targets(text, notice).say(", which it had stopped. ").code(&command("start")).say(" does.").words()
    };
    match &notice.news {
        News::Stops { reasons, unprovable } => {
            let text = targets(met(Text::new().say("🛑 "), reasons, notice, time).say(" Stopping "), notice);
            let Some(pushed) = unprovable else {
                let text =
                    text.say(" until the reset. What this stops I start again then, unless somebody changes it ");
                return text.say("meanwhile. ").code(&command("start")).say(" overrides this.").words();
            };
            let text = text.say(", and nothing starts ").say(them).say(" again by itself: ").code(pushed);
            let text = text.say(" is told by workstations alone, which proves no reset. ");
            text.code(&command("start")).say(" starts ").say(if many { "one." } else { "it." }).words()
        }
        News::WouldStop(reasons) => {
            let text = targets(met(Text::new().say("👀 "), reasons, notice, time).say(" I would stop "), notice);
            text.say(" now, but this rule only observes (")
                .code("mode = \"observe\"")
                .say("). Nothing was done.")
                .words()
        }
        News::Starts => {
            let text = Text::new().say("✅ The reset of ").code(&notice.bucket).say(" is confirmed: starting ");
            let text = targets(text, notice).say(" again, unless somebody has changed ").say(them);
            text.say(" meanwhile, as the rule ").strong(&notice.rule).say(" promised.").words()
        }
        News::WouldStart => {
            let text = Text::new().say("👀 The reset of ").code(&notice.bucket).say(" is confirmed: I would start ");
            let text = targets(text, notice).say(" again now, but the rule ").strong(&notice.rule);
            text.say(" only observes. Nothing was done.").words()
        }
        News::Overridden { who, until } => {
            let text = targets(Text::new().say("👋 ").strong(who).say(" has started "), notice);
            let text = text
                .say(": the rule ")
                .strong(&notice.rule)
                .say(" lets ")
                .say(them)
                .say(" run until the reset of ")
                .code(&notice.bucket);
            let until = until.map(|until| format!(", expected {}", time(until))).unwrap_or_default();
            text.say(&until).say(".").words()
        }
        News::HandedOver { who } => {
            let text =
                targets(Text::new().say("👋 ").strong(who).say(" has stopped "), notice).say(", too: so the rule ");
            let text = text.strong(&notice.rule).say(&format!(" will not start {them} after the reset. "));
            text.code(&command("start")).say(" does.").words()
        }
        News::Silent { .. } => {
            let text = Text::new().say("🔇 Nothing was heard of ").code(&notice.bucket).say(" since ");
            let text =
                text.say(&time(notice.cycle)).say(": the rule ").strong(&notice.rule).say(" neither stops nor starts ");
            targets(text, notice).say(" until there is fresh data.").words()
        }
        News::Kept(keepers) => {
            let text = targets(Text::new().say("⏳ "), notice).say(if many { " are" } else { " is" });
            let text = text
                .say(" not started again yet, although ")
                .code(&notice.bucket)
                .say(&format!(" holds {them} no more (rule "));
            let text = kept(text.strong(&notice.rule).say("): "), keepers, them, time).say(". ");
            text.code(&command("start")).say(" overrides this.").words()
        }
        News::Switched => {
            let text = Text::new().say("⚠️ Another account is behind ").code(&notice.bucket);
            left(text.say(" now, which is no reset: "))
        }
        News::Vanished => {
            let text = Text::new().say("⚠️ The provider names ").code(&notice.bucket);
            left(text.say(" no more, so nobody will tell its reset: "))
        }
        News::Released => left(Text::new().say("⚠️ The configuration has changed: ")),
    }
}

/// The guard does not give back what it stopped.
pub(super) fn left_alone(target: &Target, replicas: i32, by: Option<&str>) -> Words {
    let text = Text::new().say("👋 ").strong(&target.label).say(": ");
    let text = match by {
        Some(who) => text.strong(who).say(" has given an order for it"),
        None => text.say("somebody has changed it"),
    };
    let text = text.say(" since the usage guard stopped it, so the guard leaves it as it is: ");
    match replicas {
        0 => text.say("stopped. ").code(&format!("start {}", target.name)).say(" starts it.").words(),
        1 => text.say("1 replica.").words(),
        n => text.say(&format!("{n} replicas.")).words(),
    }
}

/// Which buckets meet the rule, and how.
fn met(text: Text, reasons: &[Reason], notice: &Notice, time: impl Fn(Timestamp) -> String) -> Text {
    let mut text = text;
    for (i, reason) in reasons.iter().enumerate() {
        text = text.say(if i == 0 { "" } else { "; " }).code(&reason.bucket);
        text = text.say(&format!(" is at {}", percent(reason.percent)));
        if let Some(probability) = reason.probability {
            text =
                text.say(&format!(", and {:.0} % likely to run out before its reset", (probability * 100.0).floor()));
        }
        if let Some(reset) = reason.resets_at {
            text = text.say(&format!("; its reset is expected {}", time(reset)));
        }
    }
    text.say(" (rule ").strong(&notice.rule).say(").")
}

/// What keeps targets down, and until when.
fn kept(text: Text, keepers: &[Keeper], them: &str, time: impl Fn(Timestamp) -> String) -> Text {
    keepers.iter().enumerate().fold(text, |text, (i, keeper)| {
        let text = text.say(if i == 0 { "the rule " } else { "; the rule " });
        match keeper {
            Keeper::Holds { rule, bucket, until, silent_since, provable } => {
                let end = match provable {
                    true => "the reset of".to_owned(),
                    false => format!("somebody starts {them}, as no reset is proven by pushes of"),
                };
                let text = text.strong(rule).say(&format!(" holds {them} until {end} ")).code(bucket);
                let until = until.filter(|_| *provable).map(|at| format!(", expected {}", time(at)));
                let until = until.unwrap_or_default();
                let silent = silent_since.map(|at| format!(", of which nothing was heard since {}", time(at)));
                text.say(&until).say(&silent.unwrap_or_default())
            }
            Keeper::Silent { rule, account, since } => {
                let text = text.strong(rule).say(" waits for fresh data of ").code(account);
                text.say(&format!(", of which nothing was heard since {}", time(*since)))
            }
        }
    })
}

fn targets(text: Text, notice: &Notice) -> Text {
    let last = notice.targets.len().saturating_sub(1);
    notice.targets.iter().enumerate().fold(text, |text, (i, (_, label))| {
        let between = match i {
            0 => "",
            i if i == last => " and ",
            _ => ", ",
        };
        text.say(between).strong(label)
    })
}

/// Cut, not rounded: 89.9 % has not reached 90.
fn percent(value: f64) -> String {
    format!("{} %", (value * 10.0).floor() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(news: News) -> String {
        let targets = vec![("llama".to_owned(), "Llama <70b>".to_owned()), ("gpu".to_owned(), "gpu".to_owned())];
        let cycle = "2026-11-14T14:00:00Z".parse().unwrap();
        let notice = Notice { rule: "night".to_owned(), targets, bucket: "work/weekly_all".to_owned(), cycle, news };
        let words = words(&notice, &TimeZone::get("Europe/Berlin").unwrap());
        assert!(!words.html.contains("<70b>"), "{}", words.html);
        words.plain
    }

    fn reasons() -> Vec<Reason> {
        let reason = Reason {
            bucket: "work/weekly_all".to_owned(),
            percent: 91.96,
            probability: None,
            resets_at: Some("2026-11-21T14:00:00Z".parse().unwrap()),
        };
        let likely =
            Reason { bucket: "home/weekly_all".to_owned(), probability: Some(0.85), resets_at: None, ..reason.clone() };
        vec![reason, likely]
    }

    #[test]
    fn a_stop_says_why_until_when_and_what_to_do_about_it() {
        assert_eq!(
            said(News::Stops { reasons: reasons(), unprovable: None }),
            "🛑 work/weekly_all is at 91.9 %; its reset is expected Sat 21 Nov 15:00; home/weekly_all is at 91.9 %, \
             and 85 % likely to run out before its reset (rule night). Stopping Llama <70b> and gpu until the reset. What this stops I start again then, unless \
             somebody changes it meanwhile. start llama overrides this."
        );
        let unprovable = Some("home/weekly_all".to_owned());
        assert!(said(News::Stops { reasons: reasons(), unprovable }).ends_with(
            " Stopping Llama <70b> and gpu, and nothing starts them again by itself: home/weekly_all is told by workstations \
             alone, which proves no reset. start llama starts one."
        ));
        assert!(said(News::WouldStop(reasons())).ends_with("only observes (mode = \"observe\"). Nothing was done."));
    }

    #[test]
    fn everything_else_is_a_sentence_too() {
        let who = || "@alice:hs".to_owned();
        let until = Some("2026-11-21T14:00:00Z".parse().unwrap());
        for (news, text) in [
            (
                News::Starts,
                "✅ The reset of work/weekly_all is confirmed: starting Llama <70b> and gpu again, unless \
                 somebody has changed them meanwhile, as the rule night promised.",
            ),
            (
                News::WouldStart,
                "👀 The reset of work/weekly_all is confirmed: I would start Llama <70b> and gpu again now, but the rule night \
                 only observes. Nothing was done.",
            ),
            (
                News::Overridden { who: who(), until },
                "👋 @alice:hs has started Llama <70b> and gpu: the rule night lets them run until the reset of \
                 work/weekly_all, expected Sat 21 Nov 15:00.",
            ),
            (
                News::HandedOver { who: who() },
                "👋 @alice:hs has stopped Llama <70b> and gpu, too: so the rule night will not start them after the reset. \
                 start llama does.",
            ),
            (
                News::Silent { grave: true },
                "🔇 Nothing was heard of work/weekly_all since Sat 14 Nov 15:00: the rule night neither stops nor \
                 starts Llama <70b> and gpu until there is fresh data.",
            ),
            (
                News::Kept(vec![
                    Keeper::Holds {
                        rule: "desk".to_owned(),
                        bucket: "desk/weekly_all".to_owned(),
                        until,
                        silent_since: Some("2026-11-18T08:00:00Z".parse().unwrap()),
                        provable: false,
                    },
                    Keeper::Holds {
                        rule: "hours".to_owned(),
                        bucket: "work/session".to_owned(),
                        until,
                        silent_since: None,
                        provable: true,
                    },
                    Keeper::Silent {
                        rule: "home".to_owned(),
                        account: "home".to_owned(),
                        since: "2026-11-18T08:00:00Z".parse().unwrap(),
                    },
                ]),
                "⏳ Llama <70b> and gpu are not started again yet, although work/weekly_all holds them no more (rule night): \
                 the rule desk holds them until somebody starts them, as no reset is proven by pushes of desk/weekly_all, of which nothing was \
                 heard since Wed 18 Nov 09:00; the rule hours holds them until the reset of work/session, expected \
                 Sat 21 Nov 15:00; the rule home waits for \
                 fresh data of home, of which nothing was heard since Wed 18 Nov 09:00. start llama overrides this.",
            ),
            (
                News::Switched,
                "⚠️ Another account is behind work/weekly_all now, which is no reset: the rule night will not start Llama <70b> \
                 and gpu, which it had stopped. start llama does.",
            ),
            (
                News::Vanished,
                "⚠️ The provider names work/weekly_all no more, so nobody will tell its reset: the rule night will not start \
                 Llama <70b> and gpu, which it had stopped. start llama does.",
            ),
            (
                News::Released,
                "⚠️ The configuration has changed: the rule night will not start Llama <70b> and gpu, which it had stopped. \
                 start llama does.",
            ),
        ] {
            assert_eq!(said(news), text);
        }
    }
}
