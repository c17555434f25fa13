//! Rules, people and kubectl, and what the guard makes of them.

mod properties;
mod silence;
mod stepping;
mod world;

use super::*;
use crate::usage::bucket::Source;
use crate::usage::cycle::Sample;
use crate::usage::decide::{BucketState, decide};
use crate::usage::forecast::Estimator;
use world::World;

const LLAMA: &str = "llama";

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn rule(name: &str, bucket: &str, percent: f64) -> Rule {
    Rule {
        name: name.to_owned(),
        bucket: bucket.to_owned(),
        percent: Some(percent),
        probability: None,
        targets: vec![LLAMA.to_owned()],
        acts: true,
    }
}

fn settings(rules: Vec<Rule>) -> Settings {
    let guarded =
        |name: &str| (name.to_owned(), Guarded { label: name.to_uppercase(), key: format!("Deployment/apps/{name}") });
    Settings {
        accounts: ["work", "home", "laptop", "zoo"].map(str::to_owned).to_vec(),
        pushed: vec![],
        quiet: None,
        rules,
        targets: [guarded(LLAMA), guarded("gpu")].into(),
        interval: SignedDuration::from_mins(5),
        home_room: None,
        mentions: vec![],
        zone: TimeZone::UTC,
    }
}

/// A sample of minute `minute` in the window that began at minute `cycle`.
fn view(bucket: &str, cycle: i64, percent: f64, minute: i64) -> View {
    View {
        bucket: bucket.parse().unwrap(),
        cycle: at(cycle),
        confirmed: true,
        switched: false,
        percent,
        probability: None,
        at: at(minute),
        answered_at: Some(at(minute)),
        named_at: Some(at(minute)),
        resets_at: Some(at(cycle + 10_080)),
    }
}

fn said(actions: &[Action]) -> Vec<News> {
    let news = actions.iter().filter_map(|action| match action {
        Action::Say(notice) => Some(notice.news.clone()),
        Action::Request(_) => None,
    });
    news.collect()
}

/// A rule that wants the target down until the reset of a bucket's first window.
fn holds(rule: &str, bucket: &str, silent_since: Option<Timestamp>) -> Keeper {
    let provable = !bucket.starts_with("laptop/");
    Keeper::Holds { rule: rule.to_owned(), bucket: bucket.to_owned(), until: Some(at(10_080)), silent_since, provable }
}

fn words(news: &[News]) -> Vec<&'static str> {
    news.iter().map(News::word).collect()
}

const WEEK: &str = "work/weekly_all";

#[test]
fn a_pattern_names_a_kind_an_account_or_a_scope() {
    for (pattern, bucket, watches) in [
        ("weekly_all", "work/weekly_all", true),
        ("weekly_all", "work/weekly_scoped/Fable", false),
        ("weekly_scoped", "work/weekly_scoped/Fable", true),
        ("work/weekly_scoped", "work/weekly_scoped/Fable", true),
        ("home/weekly_scoped", "work/weekly_scoped/Fable", false),
        ("work/weekly_scoped/Fable", "work/weekly_scoped/Fable", true),
        ("work/weekly_scoped/Saga", "work/weekly_scoped/Fable", false),
        ("work/weekly_scoped/a/b", "work/weekly_scoped/a/b", true),
        ("work/session", "session/work", false),
    ] {
        assert_eq!(rule("r", pattern, 90.0).watches(&bucket.parse().unwrap()), watches, "{pattern} {bucket}");
    }
}

#[test]
fn two_samples_stop_and_a_confirmed_reset_starts_again() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    assert!(world.poll(&[(WEEK, 0, 89.9)]).is_empty());
    assert!(world.poll(&[(WEEK, 0, 90.0)]).is_empty());
    // The same sample again is no second one.
    world.minute += 5;
    assert!(world.judge().is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 0, 91.0)])), ["stops"]);
    assert_eq!(world.replicas, 0);
    assert!(world.poll(&[(WEEK, 0, 91.0)]).is_empty());
    // One sample in a new window proves nothing; two do.
    world.views.insert(WEEK.to_owned(), View { confirmed: false, ..view(WEEK, 100, 0.0, world.minute) });
    assert!(world.judge().is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 100, 1.0)])), ["starts"]);
    assert_eq!(world.replicas, 2);
    assert!(world.poll(&[(WEEK, 100, 1.0)]).is_empty());
    assert!(world.states.is_empty(), "{:?}", world.states);
}

#[test]
fn a_probability_counts_as_a_percentage_does_and_falling_back_does_not_free_the_target() {
    let likely = Rule { percent: None, probability: Some(0.8), ..rule("likely", "weekly_all", 0.0) };
    let mut world = World::new(vec![likely]);
    let mut poll = |cycle, probability| {
        world.minute += 5;
        let view = View { probability, ..view(WEEK, cycle, 50.0, world.minute) };
        world.views.insert(WEEK.to_owned(), view);
        let said = said(&world.judge());
        world.operate();
        (words(&said), world.replicas)
    };
    assert_eq!(poll(0, Some(0.8)), (vec![], 2));
    assert_eq!(poll(0, Some(0.7)), (vec![], 2), "not two in a row");
    assert_eq!(poll(0, Some(0.9)), (vec![], 2));
    assert_eq!(poll(0, Some(0.9)), (vec!["stops"], 0));
    assert_eq!(poll(0, Some(0.1)), (vec![], 0));
    // Met at once in the new window: held on until it is not, or is met twice there.
    assert_eq!(poll(100, Some(0.85)), (vec![], 0));
    assert_eq!(poll(100, None), (vec!["starts"], 2));
}

#[test]
fn a_target_starts_only_when_no_rule_wants_it_down() {
    let session = "work/session";
    let mut world = World::new(vec![rule("week", "weekly_all", 90.0), rule("hours", "session", 95.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (session, 0, 10.0)]);
    }
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (session, 0, 99.0)]);
    }
    assert_eq!(world.replicas, 0);
    // The rule that has stopped it lets go first: the other still holds it, which is said once.
    let kept = world.poll(&[(WEEK, 100, 0.0), (session, 0, 99.0)]);
    assert_eq!(kept, [News::Kept(vec![holds("hours", session, None)])]);
    assert!(world.poll(&[(WEEK, 100, 0.0), (session, 0, 99.0)]).is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0), (session, 100, 0.0)])), ["starts"]);
    assert_eq!(world.replicas, 2);
}

#[test]
fn every_bucket_of_a_pattern_triggers_and_each_must_reset() {
    let (fable, saga) = ("work/weekly_scoped/Fable", "work/weekly_scoped/Saga");
    let mut world = World::new(vec![rule("models", "work/weekly_scoped", 90.0)]);
    for _ in 0..2 {
        world.poll(&[(fable, 0, 95.0), (saga, 0, 95.0)]);
    }
    assert_eq!(world.replicas, 0);
    assert_eq!(world.poll(&[(fable, 50, 0.0), (saga, 0, 95.0)]), [News::Kept(vec![holds("models", saga, None)])]);
    assert!(world.poll(&[(fable, 50, 0.0), (saga, 0, 95.0)]).is_empty());
    assert_eq!(words(&world.poll(&[(fable, 50, 0.0), (saga, 70, 0.0)])), ["starts"]);
}

#[test]
fn a_persons_start_overrides_until_the_reset_and_a_persons_stop_takes_over() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.person(Will::Start);
    let overridden = world.poll(&[(WEEK, 0, 97.0)]);
    assert_eq!(overridden, [News::Overridden { who: "@alice:hs".to_owned(), until: Some(at(10_080)) }]);
    assert!(world.poll(&[(WEEK, 0, 99.0)]).is_empty());
    assert_eq!(world.replicas, 2);
    // In the next window the rule is back.
    world.poll(&[(WEEK, 100, 92.0)]);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 93.0)])), ["stops"]);
    assert_eq!(world.replicas, 0);
    world.person(Will::Stop);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 93.0)])), ["handed-over"]);
    assert!(world.poll(&[(WEEK, 200, 0.0)]).is_empty());
    assert_eq!(world.replicas, 0);
}

#[test]
fn what_was_down_before_is_not_the_guards_to_start() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.replicas = 0;
    world.poll(&[(WEEK, 0, 95.0)]);
    assert_eq!(words(&world.poll(&[(WEEK, 0, 95.0)])), ["stops"]);
    assert!(world.poll(&[(WEEK, 100, 0.0)]).is_empty());
    assert_eq!(world.replicas, 0);
}

#[test]
fn what_kubectl_has_touched_is_left_alone() {
    for replicas in [&[3][..], &[3, 0]] {
        let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
        world.poll(&[(WEEK, 0, 95.0)]);
        world.poll(&[(WEEK, 0, 95.0)]);
        for n in replicas {
            world.scale(*n);
        }
        world.poll(&[(WEEK, 100, 0.0)]);
        world.poll(&[(WEEK, 100, 0.0)]);
        assert_eq!(world.replicas, *replicas.last().unwrap());
        assert!(world.states.is_empty(), "{:?}", world.states);
    }
}

#[test]
fn a_rule_that_observes_only_speaks() {
    let mut world = World::new(vec![Rule { acts: false, ..rule("night", "weekly_all", 90.0) }]);
    world.poll(&[(WEEK, 0, 95.0)]);
    assert_eq!(words(&world.poll(&[(WEEK, 0, 95.0)])), ["would-stop"]);
    assert!(world.poll(&[(WEEK, 0, 95.0)]).is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0)])), ["would-start"]);
    assert!(world.rows.is_empty() && world.replicas == 2);
    // It may act from now on: what it only said, it does.
    world.poll(&[(WEEK, 100, 95.0)]);
    world.poll(&[(WEEK, 100, 95.0)]);
    world.settings.rules[0].acts = true;
    assert_eq!(words(&world.poll(&[(WEEK, 100, 95.0)])), ["stops"]);
    assert_eq!(world.replicas, 0);
}

#[test]
fn a_rule_that_is_gone_says_what_it_leaves_behind() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.settings.rules.clear();
    assert_eq!(words(&world.poll(&[(WEEK, 0, 95.0)])), ["released"]);
    assert!(world.poll(&[(WEEK, 100, 0.0)]).is_empty());
    assert!(world.states.is_empty() && world.replicas == 0);
}

#[test]
fn an_account_that_is_watched_no_more_releases_what_it_stopped_and_nothing_else() {
    let home = "home/weekly_all";
    let stopped = || {
        let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
        for _ in 0..2 {
            world.poll(&[(WEEK, 0, 95.0), (home, 0, 10.0)]);
        }
        // The other limit wants it down, too, and finds nothing to stop.
        world.poll(&[(WEEK, 0, 95.0), (home, 0, 91.0)]);
        world.poll(&[(WEEK, 0, 95.0), (home, 0, 92.0)]);
        world
    };
    let mut world = stopped();
    world.settings.accounts = vec!["work".to_owned()];
    assert!(world.poll(&[(WEEK, 0, 95.0)]).is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0)])), ["starts"]);
    // The last one goes.
    let mut world = stopped();
    world.settings.accounts.clear();
    world.views.clear();
    assert_eq!(words(&world.poll(&[])), ["released"]);
    assert!(world.states.is_empty() && world.replicas == 0, "{:?}", world.states);
}

#[test]
fn what_is_used_up_is_as_likely_to_run_out_as_can_be() {
    let end = at(10_080).to_string();
    let week = serde_json::json!({"kind": "weekly_all", "percent": 100, "resets_at": end, "scope": null});
    let answer = serde_json::json!({"limits": [week]});
    let answer = crate::usage::source::answer::decode("work", Source::AnthropicOauth, at(0), None, &answer).unwrap();
    let mut state = BucketState::of(&answer.readings[0]);
    let sample = Sample::of(&answer, &answer.readings[0]).unwrap();
    decide(&mut state, &sample, &[], &crate::usage::decide::Settings::default(), at(0));
    for estimator in [Estimator::Shrunken, Estimator::Ols6h] {
        let view = View::of(&state, &state.outlook(estimator, &[])).unwrap();
        assert_eq!(view.probability, Some(1.0));
        assert!(Rule { percent: None, probability: Some(0.9), ..rule("likely", "weekly_all", 0.0) }.is_met(&view));
    }
}

#[test]
fn a_reset_that_waits_for_its_proof_has_named_its_limit() {
    let answer = |minute: i64, percent: f64, end: i64| {
        let week = serde_json::json!({
            "kind": "weekly_all", "percent": percent, "resets_at": at(end).to_string(), "scope": null,
        });
        let answer = serde_json::json!({"limits": [week]});
        crate::usage::source::answer::decode("work", Source::AnthropicOauth, at(minute), None, &answer).unwrap()
    };
    let (before, after) = (answer(0, 95.0, 100), answer(3_000, 1.0, 10_180));
    let mut state = BucketState::of(&before.readings[0]);
    for answer in [before, after] {
        let sample = Sample::of(&answer, &answer.readings[0]).unwrap();
        decide(&mut state, &sample, &[], &crate::usage::decide::Settings::default(), answer.at);
    }
    let view = View::of(&state, &state.outlook(Estimator::Shrunken, &[])).unwrap();
    assert_eq!((view.percent, view.at, view.named_at), (95.0, at(0), Some(at(3_000))));
}

#[test]
fn what_failed_is_asked_for_again_with_growing_pauses() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.away = true;
    world.poll(&[(WEEK, 0, 95.0)]);
    let mut tries = Vec::new();
    for _ in 0..20 {
        let before = world.rows.len();
        world.poll(&[(WEEK, 0, 95.0)]);
        if world.rows.len() > before {
            tries.push(world.minute);
        }
    }
    assert_eq!(tries, [10, 15, 25, 45, 85]);
    // A clock that was ahead and is set back makes nobody wait for the time that it showed.
    let mut ahead = World { settings: world.settings.clone(), ..World::new(vec![]) };
    (ahead.away, ahead.minute) = (true, 5_000);
    ahead.poll(&[(WEEK, 0, 95.0)]);
    ahead.poll(&[(WEEK, 0, 95.0)]);
    ahead.minute = 100;
    ahead.poll(&[(WEEK, 0, 95.0)]);
    assert_eq!(ahead.rows.len(), 2, "{:?}", ahead.rows);
    world.away = false;
    while world.replicas > 0 {
        world.poll(&[(WEEK, 0, 95.0)]);
    }
    // The same for the start.
    world.away = true;
    world.poll(&[(WEEK, 100, 0.0)]);
    world.away = false;
    world.poll(&[(WEEK, 100, 0.0)]);
    assert_eq!(world.replicas, 2);
}

#[test]
fn an_order_that_may_have_arrived_counts_as_the_guards_until_the_cluster_says_otherwise() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), view(WEEK, 0, 95.0, world.minute));
    world.judge();
    // It timed out, but the replicas are gone.
    world.scale(0);
    world.rows[0].course = Course::Failed { ordered: true };
    world.poll(&[(WEEK, 0, 95.0)]);
    assert_eq!(world.rows[1].course, Course::Unmoved);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0)])), ["starts"]);
}

#[test]
fn another_account_is_no_reset_and_what_was_stopped_stays_so() {
    let switched = |minute| View { switched: true, ..view(WEEK, 100, 3.0, minute) };
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    assert_eq!(world.replicas, 0);
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), switched(world.minute));
    assert_eq!(said(&world.judge()), [News::Switched]);
    world.operate();
    // Nor is it started later, not even after a reset of the new account.
    assert!(world.poll(&[(WEEK, 200, 0.0)]).is_empty());
    assert!(world.replicas == 0 && world.states.is_empty(), "{:?}", world.states);

    // The same where the stop is still on its way.
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), view(WEEK, 0, 95.0, world.minute));
    assert_eq!(words(&said(&world.judge())), ["stops"]);
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), switched(world.minute));
    assert_eq!(said(&world.judge()), [News::Switched]);
    world.operate();
    assert!(world.poll(&[(WEEK, 200, 0.0)]).is_empty());
    assert!(world.replicas == 0 && world.states.is_empty(), "{:?}", world.states);

    // The same where the new account has no such limit at all.
    let opus = "work/weekly_scoped/Opus";
    let mut world = World::new(vec![rule("models", "weekly_scoped", 90.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 50.0), (opus, 0, 95.0)]);
    }
    assert_eq!(world.replicas, 0);
    world.views.remove(opus);
    assert_eq!(world.poll(&[(WEEK, 100, 3.0)]), [News::Switched]);
    assert!(world.replicas == 0 && world.states.is_empty(), "{:?}", world.states);

    // Another account's limit that holds the target, too, still gives it back.
    let home = "home/weekly_all";
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (home, 0, 95.0)]);
    }
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), switched(world.minute));
    world.views.insert(home.to_owned(), view(home, 0, 95.0, world.minute));
    assert!(world.judge().is_empty());
    assert_eq!(words(&world.poll(&[(home, 100, 0.0)])), ["starts"]);
    assert_eq!(world.replicas, 2);

    // Nor is the first one named as the reason where it was that for which the target was stopped.
    let zoo = "zoo/weekly_all";
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (zoo, 0, 95.0)]);
    }
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), switched(world.minute));
    world.views.insert(zoo.to_owned(), view(zoo, 0, 95.0, world.minute));
    assert_eq!(said(&world.judge()), [News::Kept(vec![holds("night", zoo, None)])]);
    world.minute += 5;
    world.views.insert(zoo.to_owned(), view(zoo, 100, 0.0, world.minute));
    let actions = world.judge();
    let [Action::Say(Notice { bucket, news: News::Starts, .. }), Action::Request(_)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(bucket, zoo);
}

#[test]
fn several_targets_of_one_rule_are_told_in_one_message() {
    let both = Rule { targets: vec![LLAMA.to_owned(), "gpu".to_owned()], ..rule("night", "weekly_all", 90.0) };
    let mut world = World::new(vec![both]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.minute += 5;
    world.views.insert(WEEK.to_owned(), view(WEEK, 0, 95.0, world.minute));
    let actions = world.judge();
    let [Action::Say(notice), Action::Request(one), Action::Request(other)] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!(notice.targets, [(LLAMA.to_owned(), "LLAMA".to_owned()), ("gpu".to_owned(), "GPU".to_owned())]);
    assert_eq!((one.target.as_str(), other.target.as_str()), (LLAMA, "gpu"));
    assert_ne!(one.event, other.event);
}
