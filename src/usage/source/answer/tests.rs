use serde_json::json;

use super::*;
use crate::usage::bucket::{Reset, Unit};

fn snapshot(body: &Value) -> Snapshot {
    decode("work", Source::AnthropicOauth, Timestamp::UNIX_EPOCH, Some("max"), body).unwrap()
}

/// One line a reading: bucket, used part, time of the reset to the second, and what else is said.
fn shown(snapshot: &Snapshot) -> Vec<String> {
    let line = |reading: &Reading| {
        let mut line = format!("{} {}", reading.bucket, reading.used);
        match &reading.unit {
            Unit::Percent => line.push('%'),
            Unit::Money { currency, exponent } => {
                line = format!("{line} of {:?} {currency}e-{exponent}", reading.limit);
            }
            Unit::Count => line.push('#'),
        }
        if let Some(at) = reading.resets_at {
            line = format!("{line} {}", at.strftime("%m-%dT%H:%M:%S"));
        }
        if reading.reset != Reset::Rolling {
            line = format!("{line} {:?}", reading.reset);
        }
        if reading.active {
            line.push_str(" active");
        }
        reading.severity.iter().filter(|word| *word != "normal").fold(line, |line, word| format!("{line} {word}"))
    };
    snapshot.readings.iter().map(line).collect()
}

macro_rules! fixture {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("../../../../tests/fixtures/usage/", $name, ".json")))
            .unwrap()
    };
}

#[test]
fn every_shape_that_was_ever_answered_is_read() {
    let table: &[(&str, Value, &[&str])] = &[
        ("early", fixture!("early"), &["work/session 33% 01-12T05:59:59", "work/weekly_all 7% 01-17T08:59:59"]),
        (
            "a model's window that is idle is none",
            fixture!("null-reset"),
            &["work/session 21% 02-10T15:59:59", "work/weekly_all 14% 02-15T16:59:59"],
        ),
        (
            "windows of models, one at zero with a date",
            fixture!("model-windows"),
            &[
                "work/session 23% 06-09T16:30:00",
                "work/weekly_all 19% 06-14T22:00:00",
                "work/weekly_scoped/Opus 0% 06-14T22:00:01",
                "work/weekly_scoped/Sonnet 27% 06-14T23:00:00",
            ],
        ),
        (
            "a cap that stands in limits alone",
            fixture!("limits-scoped-full"),
            &[
                "work/session 8% 07-22T01:00:00",
                "work/weekly_all 61% 07-26T02:00:00",
                "work/weekly_scoped/Fable 100% 07-26T02:00:00 active critical",
                "work/extra 2152 of Some(5000.0) USDe-2 Calendar out_of_credits",
            ],
        ),
        (
            "money without a limit",
            fixture!("extra-uncapped"),
            &[
                "work/session 47% 07-22T01:00:00 active",
                "work/weekly_all 13% 07-26T02:00:00",
                "work/weekly_scoped/Fable 14% 07-26T02:00:00",
                "work/extra 20847 of None EURe-2 Calendar active",
            ],
        ),
        (
            "an account that only spends, with credit that expires once",
            fixture!("spend-only"),
            &[
                "work/cinder_cove 100000 of Some(100000.0) USDe-2 09-22T18:55:57 OneTimeExpiry",
                "work/extra 211926 of Some(500000.0) USDe-2 Calendar active",
            ],
        ),
        (
            "an empty list hides no window",
            fixture!("limits-empty"),
            &["work/session 10% 09-01T12:00:00", "work/weekly_all 20% 09-05T07:00:00"],
        ),
        (
            "the newest",
            fixture!("breakdown"),
            &[
                "work/session 89% 09-16T15:10:00 active warning",
                "work/weekly_all 35% 09-19T22:00:00",
                "work/weekly_scoped/Fable 4% 09-19T21:59:59",
            ],
        ),
        (
            "the CLI's own, with a gap in its list",
            fixture!("cli-get-usage")["rate_limits"].clone(),
            &[
                "work/session 51% 08-25T19:09:59 active",
                "work/weekly_scoped/Fable 5% 08-31T21:59:59",
                "work/weekly_all 4% 08-31T21:59:59",
                "work/weekly_scoped/Saga 9% 08-31T21:59:59",
            ],
        ),
    ];
    for (what, body, expected) in table {
        let snapshot = snapshot(body);
        let mut lines = shown(&snapshot);
        let mut expected = expected.to_vec();
        lines.sort();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{what}");
        assert!(snapshot.unknown.is_empty() && snapshot.unreadable.is_empty(), "{what}: {snapshot:?}");
    }
}

#[test]
fn one_reshaped_section_hides_no_other() {
    let snapshot = snapshot(&fixture!("reshaped"));
    assert_eq!(
        shown(&snapshot),
        [
            "work/monthly_all 104.2% 09-19T22:00:00",
            "work/weekly_scoped/Fable on cowork 8% 09-19T21:59:59",
            "work/weekly_all 1%",
            "work/quartz_lamp 3% 09-19T22:00:00 OneTimeExpiry",
            "work/weekly_scoped/Haiku 6% 09-19T22:00:00",
        ]
    );
    assert_eq!(
        snapshot.unreadable,
        ["extra_usage", "five_hour", "limits session", "limits[2]", "limits[3] weekly_scoped", "seven_day.resets_at"]
    );
    assert_eq!(
        snapshot.unknown,
        ["limits.kind=monthly_all", "quartz_lamp", "seven_day_breakdown.rows", "seven_day_haiku", "vivid_moth"]
    );
}

#[test]
fn what_another_section_makes_up_for_is_no_loss() {
    let body = json!({
        "five_hour": {"utilization": 12, "resets_at": null},
        "limits": [{"kind": "session", "percent": {"value": 12}}],
    });
    let snapshot = snapshot(&body);
    assert_eq!(shown(&snapshot), ["work/session 12%"]);
    assert_eq!((snapshot.unreadable.len(), snapshot.unknown), (0, vec!["limits session".to_owned()]));
    let lost = json!({"seven_day": {"utilization": 1, "resets_at": null}, "limits": "none"});
    assert_eq!(super::tests::snapshot(&lost).unreadable, ["limits"]);
}

#[test]
fn one_is_one_per_cent_and_an_idle_window_is_there() {
    let body = json!({
        "five_hour": {"utilization": 0.0, "resets_at": null},
        "seven_day": {"utilization": 1.0, "resets_at": 1_789_855_200},
        "limits": [{"kind": "weekly_scoped", "percent": 0.5, "resets_at": "2026-09-19T22:00:00Z", "scope": {"model": {"display_name": "Fable"}, "surface": null}}],
    });
    assert_eq!(
        shown(&snapshot(&body)),
        ["work/weekly_scoped/Fable 0.5% 09-19T22:00:00", "work/session 0%", "work/weekly_all 1% 09-19T22:00:00"]
    );
}

#[test]
fn what_is_no_percentage_is_not_read() {
    for percent in [json!(-1), json!(1_001), json!("7"), json!(null), json!(true), json!([7]), json!({"value": 7})] {
        let body = json!({"five_hour": {"utilization": percent, "resets_at": "2026-09-19T22:00:00Z"}});
        let snapshot = snapshot(&body);
        assert!(snapshot.readings.is_empty(), "{percent}");
        assert_eq!(snapshot.unreadable, ["five_hour"], "{percent}");
    }
    for percent in [0.0, 99.5, 100.0, 104.2, 1_000.0] {
        let body = json!({"five_hour": {"utilization": percent, "resets_at": "2026-09-19T22:00:00Z"}});
        assert_eq!(snapshot(&body).readings[0].percent(), Some(percent));
    }
}

#[test]
fn a_scope_is_the_same_whatever_its_capitals_and_never_two_in_one() {
    let scoped = |scope: Value, percent: u8| json!({"kind": "weekly_scoped", "percent": percent, "resets_at": null, "scope": scope});
    let body = json!({
        "seven_day_opus": {"utilization": 9, "resets_at": "2026-09-19T22:00:00Z"},
        "limits": [
            scoped(json!({"model": {"id": null, "display_name": "opus"}, "surface": null}), 1),
            scoped(json!({"model": {"id": "m-1", "display_name": null}, "surface": null}), 2),
            scoped(json!({"model": null, "surface": "chat"}), 3),
            scoped(json!({"model": {"display_name": "opus"}, "surface": {"name": "chat"}}), 4),
            scoped(json!({"model": null, "surface": null}), 5),
        ],
    });
    let names: Vec<_> = snapshot(&body).readings.into_iter().map(|reading| reading.bucket.scope).collect();
    let expected =
        [Some("opus"), Some("m-1"), Some("chat"), Some("opus on chat"), None].map(|name| name.map(str::to_owned));
    assert_eq!(names, expected);
}

#[test]
fn an_answer_without_a_known_key_is_an_error_and_never_zero() {
    for (body, keys) in [
        (json!({}), vec![]),
        (json!({"usage": 1, "alpha": {}}), vec!["alpha", "usage"]),
        (json!({"type": "error", "error": {"type": "x"}}), vec!["error", "type"]),
        (
            json!({"nimbus_quill": null, "member_dashboard_available": true}),
            vec!["member_dashboard_available", "nimbus_quill"],
        ),
        (json!([1]), vec!["no object"]),
        (json!("text"), vec!["no object"]),
    ] {
        let error = decode("work", Source::AnthropicOauth, Timestamp::UNIX_EPOCH, None, &body).unwrap_err();
        assert_eq!(error, SourceError::SchemaDrift(keys.into_iter().map(str::to_owned).collect()), "{body}");
    }
}

#[test]
fn the_week_is_shared_out() {
    let shares = snapshot(&fixture!("breakdown")).shares;
    let shown: Vec<_> = shares.iter().map(|share| format!("{} {}", share.name, share.percent)).collect();
    assert_eq!(shown, ["Claude Code 88", "Chats 2", "Other 10"]);
}

#[test]
fn names_of_a_hostile_answer_are_short_and_few() {
    let mut body = serde_json::Map::new();
    body.insert("spend".to_owned(), Value::Null);
    for number in 0..1_000 {
        body.insert(format!("key\u{1b}[31m\n{number:0>200}"), json!(1));
    }
    let snapshot = snapshot(&Value::Object(body));
    assert_eq!(snapshot.unknown.len(), 1, "they are alike once they are cut");
    assert!(snapshot.unknown.iter().all(|key| key.len() <= NAME && !key.contains(char::is_control)));
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_json_makes_it_panic(text in r#"\{"(five_hour|limits|spend|seven_day_breakdown|cinder_cove)":(\[|\{)?"?[a-z0-9":,{}\[\]-]{0,40}\}"#) {
        if let Ok(body) = serde_json::from_str::<Value>(&text) {
            let _ = decode("work", Source::Push, Timestamp::UNIX_EPOCH, None, &body);
        }
    }
}
