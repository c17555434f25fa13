//! The subscription's section: accounts, rules, and the variables of an earlier watcher.

use jiff::SignedDuration;

use super::{COMPLETE, Place, load};
use crate::config::{Estimator, GuardMode, UsageSource, quiet_hours};

fn with(lines: &str) -> String {
    format!("{COMPLETE}\n{lines}\n")
}

#[test]
fn nothing_is_watched_unless_an_account_is_named() {
    let usage = load(Some(COMPLETE), &[]).unwrap().config.usage;
    assert!(usage.accounts.is_empty() && usage.rules.is_empty() && usage.listen.is_none());
    assert_eq!(usage.interval, SignedDuration::from_mins(5));
    assert_eq!(usage.forecast, Estimator::Shrunken);
}

#[test]
fn an_account_and_a_rule_need_little() {
    let text = with(
        "[[usage.accounts]]\ndirectory = \"/data/claude\"\n\
         [[usage.rules]]\nname = \"week\"\nbucket = \"weekly_all\"\npercent = 90\nstop = [\"web\"]",
    );
    let usage = load(Some(&text), &[]).unwrap().config.usage;
    assert_eq!((usage.accounts[0].name.as_str(), usage.accounts[0].source), ("default", UsageSource::AnthropicOauth));
    assert_eq!((usage.rules[0].percent, usage.rules[0].mode), (Some(90.0), GuardMode::Observe));
}

#[test]
fn a_rule_that_acts_is_warned_of_each_account_whose_resets_nobody_proves() {
    let accounts = "[usage]\nlisten = \"127.0.0.1:9091\"\n[[usage.accounts]]\nname = \"work\"\ndirectory = \"/data\"\n\
                    [[usage.accounts]]\nname = \"desk\"\nsource = \"push\"\npush_token_file = \"/run/token\"\n\
                    [[usage.accounts]]\nname = \"work\"\nsource = \"push\"\npush_token_file = \"/run/token\"\n";
    for (bucket, mode, warned) in [
        ("weekly_all", "act", true),
        ("desk/weekly_all", "act", true),
        ("work/weekly_all", "act", false),
        ("weekly_all", "observe", false),
    ] {
        let rule = format!(
            "[[usage.rules]]\nname = \"r\"\nbucket = {bucket:?}\npercent = 90\nstop = [\"web\"]\nmode = {mode:?}"
        );
        let warnings = load(Some(&with(&format!("{accounts}{rule}"))), &[]).unwrap().warnings;
        let told: Vec<_> =
            warnings.iter().map(ToString::to_string).filter(|text| text.contains("proves a reset")).collect();
        assert_eq!(told.len(), usize::from(warned), "{bucket} {mode}: {told:?}");
        assert!(told.iter().all(|text| text.contains("what this rule stops for desk is not started")), "{told:?}");
    }
}

#[test]
fn the_earlier_watchers_variables_work() {
    let environment = [("LOCAL_MODE", "true"), ("HOME", "/home/you"), ("PILOTHOUSE__USAGE__FORECAST", "ols6h")];
    let usage = load(Some(COMPLETE), &environment).unwrap().config.usage;
    assert_eq!(usage.accounts[0].directory.as_deref(), Some(std::path::Path::new("/home/you/.claude")));
    assert_eq!(usage.forecast, Estimator::Ols6h);
    let elsewhere = [environment[0], ("CLAUDE_CONFIG_DIR", "/data/bot"), environment[1]];
    let usage = load(Some(COMPLETE), &elsewhere).unwrap().config.usage;
    assert_eq!(usage.accounts[0].directory.as_deref(), Some(std::path::Path::new("/data/bot")));
    // What the file names counts more.
    let text = with("[[usage.accounts]]\nname = \"work\"\ndirectory = \"/data/claude\"");
    let usage = load(Some(&text), &environment).unwrap().config.usage;
    assert_eq!((usage.accounts.len(), usage.accounts[0].name.as_str()), (1, "work"));
    assert!(load(Some(COMPLETE), &[("LOCAL_MODE", "false"), environment[1]]).unwrap().config.usage.accounts.is_empty());
}

#[test]
fn what_cannot_be_is_told_with_what_to_write() {
    let rule = |lines: &str| {
        format!(
            "[[usage.accounts]]\nname = \"work\"\ndirectory = \"/data\"\n[[usage.rules]]\nname = \"r\"\nstop = [\"web\"]\n{lines}"
        )
    };
    for (lines, part) in [
        (
            "[usage]\ninterval = \"1m\"\n[[usage.accounts]]\ndirectory = \"/data\"".to_owned(),
            "usage.interval (pilothouse.toml): 1m is too short. Write 3m or more",
        ),
        ("[usage]\nprobability = 80".to_owned(), "usage.probability (pilothouse.toml): 80 is not between 0 and 1."),
        ("[usage]\nprobability = \"high\"".to_owned(), "is text, not a number. Write for instance probability = 0.8."),
        ("[usage]\ntimezone = \"Berlin\"".to_owned(), "\"Berlin\" is no time zone. Write an IANA name"),
        (
            "[usage]\nquiet_hours = \"night\"".to_owned(),
            "\"night\" is no span of the day. Write for instance 23:00-07:00.",
        ),
        (
            "[usage.mention]\nloud = \"@a:b\"".to_owned(),
            "\"loud\" is no severity. Known are notice, warning, critical.",
        ),
        ("[usage.thresholds]\nweekly = [0.5]".to_owned(), "0.5 is not between 1 and 100."),
        (
            "[usage.thresholds]\nweekly = \"90\"".to_owned(),
            "is text, not a list of numbers. Write for instance weekly = [50, 75, 90].",
        ),
        ("[[usage.accounts]]\nname = \"a b\"\ndirectory = \"/d\"".to_owned(), "\"a b\" is no name. Use letters"),
        ("[[usage.accounts]]".to_owned(), "nothing says where the login is. Name a Kubernetes Secret"),
        (
            "[[usage.accounts]]\nsecret = \"s\"".to_owned(),
            "usage.accounts[0].namespace (pilothouse.toml): is not given.",
        ),
        (
            "[[usage.accounts]]\nsource = \"push\"".to_owned(),
            "usage.accounts[0].push_token_file (pilothouse.toml): is not given.",
        ),
        (
            "[[usage.accounts]]\nsource = \"command\"".to_owned(),
            "usage.accounts[0].command (pilothouse.toml): is not given.",
        ),
        (
            rule("bucket = \"weekly\"\npercent = 90"),
            "\"weekly\" names no kind of bucket. Write a kind (session, weekly_all",
        ),
        (
            rule("bucket = \"home/weekly_all\"\npercent = 90"),
            "there is no account \"home\". Name one of usage.accounts.",
        ),
        (rule("bucket = \"session\"\nprobability = 0.9"), "only weekly buckets are forecast. Use percent"),
        (rule("bucket = \"weekly_all\""), "nothing says when the rule applies. Write percent = 90"),
        (
            rule("bucket = \"weekly_all\"\npercent = 90").replace("\"web\"", "\"wbe\""),
            "\"wbe\" is no target. Known are web.",
        ),
        (rule("bucket = \"weekly_all\"\npercent = 90").replace("\"web\"", "\"*\""), "must name every target."),
    ] {
        let faults = Place::new(Some(&with(&lines)), &[]).faults();
        assert!(faults.contains(part), "{lines}\n{faults}");
    }
}

#[test]
fn quiet_hours_are_two_times_of_day() {
    let (from, to) = quiet_hours("23:00-07:30").unwrap();
    assert_eq!((from.hour(), to.hour(), to.minute()), (23, 7, 30));
    for bad in ["", "23-7", "25:00-07:00", "23:00"] {
        assert!(quiet_hours(bad).is_none(), "{bad}");
    }
}
