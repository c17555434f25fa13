use crate::usage::bucket::{Reading, Share, Snapshot, Source, Unit};
use crate::usage::decide::Pace;
use crate::usage::forecast::Estimator;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-09-15T09:40:00Z";

fn reading(bucket: &str, used: f64, resets_at: Option<&str>) -> Reading {
    Reading {
        bucket: bucket.parse().unwrap(),
        unit: Unit::Percent,
        used,
        limit: None,
        window: None,
        resets_at: resets_at.map(at),
        reset: Reset::Rolling,
        active: false,
        severity: None,
    }
}

fn shown(reading: Reading, outlook: Outlook) -> Shown {
    Shown { reading, at: at("2026-09-15T09:36:00Z"), outlook, pace: None, burn: None }
}

fn watched(name: &str, readings: &[(Reading, Outlook)]) -> Watched {
    let snapshot = Snapshot {
        account: name.to_owned(),
        source: Source::AnthropicOauth,
        at: at("2026-09-15T09:36:00Z"),
        owner: None,
        readings: readings.iter().map(|(reading, _)| reading.clone()).collect(),
        shares: vec![
            Share { name: "Claude Code".to_owned(), percent: 89.0 },
            Share { name: "<b>".to_owned(), percent: 0.4 },
        ],
        plan: Some("max".to_owned()),
        unknown: vec![],
        unreadable: vec![],
    };
    Watched {
        name: name.to_owned(),
        snapshot: Some(snapshot),
        buckets: readings.iter().map(|(reading, outlook)| shown(reading.clone(), *outlook)).collect(),
        stale_after: SignedDuration::from_mins(15),
        trouble: None,
        blocked_until: None,
    }
}

fn told(accounts: Vec<Watched>) -> Words {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    overview(&Overview { accounts, muted_until: None, zone, now: at(NOW) })
}

#[test]
fn what_blocks_is_said_first_with_the_cap_that_binds_in_local_time() {
    let words = told(vec![watched(
        "work",
        &[
            (reading("work/session", 100.0, Some("2026-09-15T11:59:59.9Z")), Outlook::NoResetKnown),
            (reading("work/weekly_scoped/Fable", 100.0, Some("2026-09-17T12:00:00.9Z")), Outlook::Exhausted),
            (reading("work/weekly_all", 59.0, Some("2026-09-17T12:00:00Z")), Outlook::TooEarly),
        ],
    )]);
    let lines: Vec<&str> = words.plain.lines().collect();
    assert_eq!(
        lines,
        [
            "⛔ blocked now, back Thu 14:00 (in 2 d 2 h): the week of Fable is used up (1 more used up, but over sooner).",
            "Subscription (max)",
            "▓▓▓▓▓▓▓▓▓▓ 5-hour window 100 %, resets 14:00 (in 2 h 20 min).",
            "▓▓▓▓▓▓▓▓▓▓ week of Fable 100 %, resets Thu 14:00 (in 2 d 2 h).",
            "▓▓▓▓▓░░░░░ week 59 %, resets Thu 14:00 (in 2 d 2 h). Too early to foretell.",
            "This week went to Claude Code 89 %.",
            "As of 4 min ago.",
        ]
    );
    assert!(words.html.contains("<blockquote>") && !words.html.contains("<b>"), "{}", words.html);
}

#[test]
fn several_accounts_have_their_names_and_old_numbers_say_so() {
    let mut old = watched("work", &[(reading("work/weekly_all", 20.0, None), Outlook::NoResetKnown)]);
    old.buckets[0].at = at("2026-09-15T09:00:00Z");
    old.blocked_until = Some(at("2026-09-15T10:55:00Z"));
    let mut failed = watched("private", &[(reading("private/weekly_all", 30.0, None), Outlook::NoResetKnown)]);
    failed.trouble = Some("no answer".to_owned());
    let plain = told(vec![old, failed]).plain;
    assert!(plain.starts_with("work (max)\n"), "{plain}");
    assert!(plain.contains("⚠️ These numbers are 40 min old: nothing is stopped or started by them. The provider wants to be left alone until 12:55."), "{plain}");
    assert!(plain.contains("private (max)\n") && plain.contains("The last question failed: no answer."), "{plain}");
    assert!(told(vec![]).plain.starts_with("No subscription is watched here."));
}

#[test]
fn a_limit_of_which_nothing_was_heard_lately_has_an_age_of_its_own() {
    let fable = reading("work/weekly_scoped/Fable", 100.0, Some("2026-09-17T12:00:00Z"));
    let week = reading("work/weekly_all", 57.0, None);
    let mut joined = watched("work", &[(week, Outlook::NoResetKnown), (fable, Outlook::Exhausted)]);
    let lines = |joined: &Watched| told(vec![joined.clone()]).plain.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&joined)[3], "▓▓▓▓▓▓▓▓▓▓ week of Fable 100 %, resets Thu 14:00 (in 2 d 2 h).");
    joined.buckets[1].at = at("2026-09-15T06:00:00Z");
    joined.snapshot.as_mut().unwrap().at = at("2026-09-15T06:00:00Z");
    assert_eq!(
        lines(&joined)[2..],
        [
            "▓▓▓▓▓░░░░░ week 57 %.",
            "▓▓▓▓▓▓▓▓▓▓ week of Fable 100 % 3 h 40 min ago, resets Thu 14:00 (in 2 d 2 h).",
            "As of 4 min ago.",
        ]
    );
    assert_eq!(
        lines(&joined)[0],
        "⛔ blocked now, back Thu 14:00 (in 2 d 2 h): the week of Fable is used up, as of 3 h 40 min ago."
    );
    // Where all of it is old, it is said once.
    joined.buckets[0].at = at("2026-09-15T06:00:00Z");
    assert!(lines(&joined)[2..5].iter().all(|line| !line.contains("ago")), "{:?}", lines(&joined));
}

#[test]
fn a_week_has_its_pace_and_burn_and_the_first_answer_is_armed_with_bars() {
    let week = reading("work/weekly_all", 59.0, Some("2026-09-17T12:00:00Z"));
    let hours = reading("work/session", 59.0, Some("2026-09-15T12:00:00Z"));
    let mut account = watched("work", &[(week, Outlook::TooEarly), (hours, Outlook::NoResetKnown)]);
    for shown in &mut account.buckets {
        (shown.pace, shown.burn) = (Some(Pace { used: 59.0, even: 40.0 }), Some(1.3));
    }
    let line = |account: &Watched, n: usize| told(vec![account.clone()]).plain.lines().nth(n).unwrap().to_owned();
    assert_eq!(
        line(&account, 1),
        "▓▓▓▓▓░░░░░ week 59 %, resets Thu 14:00 (in 2 d 2 h), 19 pp ahead of even use. Too early to foretell. Now 1.3 pp an hour."
    );
    assert_eq!(line(&account, 2), "▓▓▓▓▓░░░░░ 5-hour window 59 %, resets 14:00 (in 2 h 20 min).");
    for (even, words) in [(70.0, ", 11 pp behind even use."), (59.4, ", at an even pace.")] {
        account.buckets[0].pace = Some(Pace { used: 59.0, even });
        assert!(line(&account, 1).contains(words), "{}", line(&account, 1));
    }
    let zone = TimeZone::UTC;
    let armed = armed(&Overview { accounts: vec![account], muted_until: None, zone, now: at(NOW) }).plain;
    assert!(armed.starts_with("👀 Armed: the subscription is watched from now on.\n"), "{armed}");
    assert!(armed.contains("▓▓▓▓▓░░░░░ week 59 %"), "{armed}");
}

#[test]
fn a_forecast_is_a_probability_and_a_range() {
    let zone = TimeZone::UTC;
    let forecast = |probability, low: Option<&str>, high: Option<&str>| Forecast {
        estimator: Estimator::Shrunken,
        probability,
        low: low.map(at),
        median: None,
        high: high.map(at),
    };
    let words = |forecast: &Forecast| foretold(forecast, at(NOW), &zone);
    for (forecast, expected) in [
        (forecast(0.004, None, None), "Lasts until the reset, as far as can be foretold"),
        (forecast(0.05, None, None), "5 % likely to run out before the reset"),
        (
            forecast(0.4, Some("2026-09-16T08:00:00Z"), None),
            "40 % likely to run out before the reset, from Wed 08:00 on, or not before the reset",
        ),
        (
            forecast(0.99, Some("2026-09-15T20:00:00Z"), Some("2026-09-16T08:00:00Z")),
            "99 % likely to run out before the reset, between 20:00 and Wed 08:00",
        ),
    ] {
        assert_eq!(words(&forecast), expected);
    }
    let line = Forecast { estimator: Estimator::Ols6h, ..forecast(0.0, None, None) };
    assert_eq!(words(&line), "At the pace of the last 6 hours it lasts");
}

#[test]
fn a_bar_is_full_only_at_the_limit() {
    for (percent, expected) in
        [(0.0, "░░░░░░░░░░"), (9.9, "░░░░░░░░░░"), (99.9, "▓▓▓▓▓▓▓▓▓░"), (100.0, "▓▓▓▓▓▓▓▓▓▓"), (104.2, "▓▓▓▓▓▓▓▓▓▓")]
    {
        assert_eq!(bar(percent), expected);
    }
}

#[test]
fn what_is_used_up_blocks_nothing_while_extra_usage_pays() {
    let week = reading("work/weekly_all", 100.0, Some("2026-09-17T12:00:00Z"));
    let unit = Unit::Money { currency: "EUR".to_owned(), exponent: 2 };
    let extra =
        |used, limit, active| Reading { unit: unit.clone(), used, limit, active, ..reading("work/extra", 0.0, None) };
    let first = |extra: Reading| {
        let both = [(week.clone(), Outlook::Exhausted), (extra, Outlook::NoResetKnown)];
        told(vec![watched("work", &both)]).plain.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        first(extra(2152.0, Some(5000.0), true)),
        "💳 the week is used up: extra usage pays until Thu 14:00 (in 2 d 2 h), 21.52 EUR of 50.00 EUR."
    );
    assert!(first(extra(2152.0, None, true)).contains("pays until Thu 14:00 (in 2 d 2 h), 21.52 EUR (no limit)."));
    for none in [extra(5000.0, Some(5000.0), true), extra(2152.0, Some(5000.0), false)] {
        assert!(first(none).starts_with("⛔ blocked now, back Thu 14:00"));
    }
}

#[test]
fn what_is_counted_is_said_as_it_is() {
    let seats = |limit| Reading { unit: Unit::Count, limit, ..reading("work/seats", 12.0, None) };
    let plain = |limit| told(vec![watched("work", &[(seats(limit), Outlook::NoResetKnown)])]).plain;
    assert!(plain(Some(48.0)).contains("▓▓░░░░░░░░ seats 25 %."), "{}", plain(Some(48.0)));
    assert!(plain(None).contains("seats 12."), "{}", plain(None));
}

#[test]
fn the_end_of_a_month_and_another_account_have_their_own_words() {
    let said = |bucket: &str, shape| {
        let news = News::Reset {
            shape,
            when: When::At(at("2026-09-15T09:00:00Z")),
            before: 43.0,
            percent: 2.0,
            resets_at: None,
            next: at("2026-09-15T09:00:00Z"),
            confirmed: true,
        };
        let bulletin =
            Bulletin { bucket: bucket.parse().unwrap(), several: false, news, zone: TimeZone::UTC, now: at(NOW) };
        (bulletin.severity(), bulletin_words(&bulletin))
    };
    assert_eq!(
        said("work/extra", Shape::Monthly),
        (Severity::Notice, "🔄 🟢 extra usage begins a new month: 09:00, 43 % → 2 %.".to_owned())
    );
    assert_eq!(
        said("work/weekly_all", Shape::Switched),
        (
            Severity::Warning,
            "🔄 🟡 work belongs to another account now, and no limit was reset: its week is at ░░░░░░░░░░ 2 %."
                .to_owned()
        )
    );
}

fn bulletin_words(bulletin: &Bulletin) -> String {
    super::bulletin(bulletin).plain
}

#[test]
fn an_outage_is_told_with_its_age_and_cause() {
    let hours = |hours| Some(SignedDuration::from_hours(hours));
    assert_eq!(
        trouble("work", "the usage endpoint: no such host; it is asked again later", hours(30)).plain,
        "⚠️ work: the subscription cannot be read for 1 d 6 h: the usage endpoint: no such host; it is asked again later. \
         The last numbers stay, and nothing is stopped or started by them."
    );
    assert_eq!(trouble("work", "log in again", None).plain, "⚠️ work: the subscription cannot be read: log in again.");
}

#[test]
fn accuracy_is_counts_of_weeks_with_what_they_are_worth() {
    let record = |windows, ran_out, false_alarms| Record {
        estimator: "shrunken".to_owned(),
        windows,
        ran_out,
        caught: 1,
        false_alarms,
        brier: 0.1604,
        brier_of_base_rate: 0.25,
    };
    assert_eq!(
        accuracy(&[record(3, 2, 1)]).plain,
        "shrunken: 3 closed weeks, 2 ran out, 1 of them foretold at least 2 h ahead; 1 false alarm in 1 that lasted. \
         Brier score 0.160 (0 is perfect; always saying the base rate gives 0.250).\nFewer than ten weeks say little."
    );
    let many = accuracy(&[record(12, 2, 0)]).plain;
    assert!(many.contains("0 false alarms in 10 that lasted") && !many.contains("say little"), "{many}");
    assert!(accuracy(&[]).plain.contains("nothing to hold forecasts against"));
}

#[test]
fn money_is_said_in_its_own_unit() {
    let unit = Unit::Money { currency: "EUR".to_owned(), exponent: 2 };
    let mut extra = reading("work/extra", 2152.0, None);
    (extra.unit, extra.limit) = (unit, Some(5000.0));
    let plain = told(vec![watched("work", &[(extra.clone(), Outlook::NoResetKnown)])]).plain;
    assert!(plain.contains("▓▓▓▓░░░░░░ extra usage 21.52 EUR of 50.00 EUR."), "{plain}");
    extra.limit = None;
    let plain = told(vec![watched("work", &[(extra, Outlook::NoResetKnown)])]).plain;
    assert!(plain.contains("extra usage 21.52 EUR (no limit)."), "{plain}");
}
