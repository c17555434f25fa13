//! What the guard does and says while nothing is heard: of an account that is asked, or of a workstation that sleeps.

use super::world::World;
use super::*;

/// Of the accounts `work`, which is asked, and `laptop`, of which its workstation alone tells.
#[test]
fn a_stop_promises_a_start_unless_something_that_proves_no_reset_wants_it_too() {
    let laptop = "laptop/weekly_all";
    let unprovable = |news: &[News]| match news {
        [News::Stops { unprovable, .. }] => unprovable.clone(),
        other => panic!("{other:?}"),
    };
    for rules in [vec![rule("all", "weekly_all", 90.0)], vec![rule("office", WEEK, 90.0), rule("desk", laptop, 90.0)]] {
        let world = || {
            let mut world = World::new(rules.clone());
            world.settings.pushed = vec!["laptop".to_owned()];
            world
        };
        let mut asked = world();
        asked.poll(&[(WEEK, 0, 95.0), (laptop, 0, 10.0)]);
        assert_eq!(unprovable(&asked.poll(&[(WEEK, 0, 95.0), (laptop, 0, 10.0)])), None);
        let mut pushed = world();
        pushed.poll(&[(WEEK, 0, 10.0), (laptop, 0, 95.0)]);
        assert_eq!(unprovable(&pushed.poll(&[(WEEK, 0, 10.0), (laptop, 0, 95.0)])).as_deref(), Some(laptop));
        // What holds it already counts, whichever rule is met after that.
        pushed.poll(&[(WEEK, 0, 95.0), (laptop, 0, 95.0)]);
        assert_eq!(unprovable(&pushed.poll(&[(WEEK, 0, 95.0), (laptop, 0, 95.0)])).as_deref(), Some(laptop));
    }
}

#[test]
fn stale_data_neither_stops_nor_starts_and_is_told_once() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.minute += 15;
    assert!(world.judge().is_empty(), "three intervals are not too many");
    world.minute += 1;
    assert_eq!(words(&said(&world.judge())), ["silent"]);
    world.minute += 60;
    assert!(world.judge().is_empty());
    assert_eq!(words(&world.poll(&[(WEEK, 0, 95.0)])), ["stops"]);
    // Nothing is heard of the reset in time: only the next sample starts it.
    world.views.insert(WEEK.to_owned(), view(WEEK, 100, 0.0, world.minute));
    world.minute += 16;
    assert_eq!(words(&said(&world.judge())), ["silent"]);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0)])), ["starts"]);
}

#[test]
fn for_a_rule_that_only_observes_nobody_is_woken() {
    let mut world = World::new(vec![Rule { acts: false, ..rule("night", "weekly_all", 90.0) }]);
    world.poll(&[(WEEK, 0, 95.0)]);
    world.minute += 16;
    assert_eq!(said(&world.judge()), [News::Silent { grave: false }]);
}

#[test]
fn a_bucket_that_is_not_told_any_more_holds_what_it_holds_and_nothing_else() {
    let (fable, saga) = ("work/weekly_scoped/Fable", "work/weekly_scoped/Saga");
    let mut world = World::new(vec![rule("models", "weekly_scoped", 90.0)]);
    for _ in 0..2 {
        world.poll(&[(fable, 0, 95.0), (saga, 0, 10.0)]);
    }
    // Saga is gone from the answers; the account is heard, so its silence is no reason to wait.
    for _ in 0..5 {
        assert!(world.poll(&[(fable, 0, 95.0)]).is_empty());
    }
    assert_eq!(words(&world.poll(&[(fable, 100, 0.0)])), ["starts"]);
    // What is gone while it holds the target is told.
    for _ in 0..2 {
        world.poll(&[(fable, 100, 95.0), (saga, 0, 10.0)]);
    }
    for _ in 0..3 {
        assert!(world.poll(&[(saga, 0, 10.0)]).is_empty());
    }
    assert_eq!(words(&world.poll(&[(saga, 0, 10.0)])), ["silent"]);
    assert_eq!(world.replicas, 0);
}

#[test]
fn a_limit_that_is_named_no_more_lets_go_after_its_reset_and_so_does_an_override_of_it() {
    let (fable, saga) = ("work/weekly_scoped/Fable", "work/weekly_scoped/Saga");
    let week = 10_080;
    let held = || {
        let mut world = World::new(vec![rule("models", "weekly_scoped", 90.0)]);
        for _ in 0..2 {
            world.poll(&[(fable, 0, 95.0), (saga, 0, 10.0)]);
        }
        assert_eq!(world.replicas, 0);
        world
    };
    // Before its reset, and for a day, it may come back; after that nobody will ever say that it was reset.
    let day = 24 * 60;
    let mut world = held();
    world.minute = week - 100;
    assert_eq!(words(&world.poll(&[(saga, week - 200, 10.0)])), ["silent"]);
    world.minute = week + day - 10;
    assert!(world.poll(&[(saga, week, 10.0)]).is_empty());
    assert_eq!(words(&world.poll(&[(saga, week, 10.0)])), ["vanished"]);
    assert!(world.poll(&[(saga, week, 10.0)]).is_empty());
    assert!(world.replicas == 0 && world.states.is_empty(), "{:?}", world.states);
    // While nobody answers for the account, nothing is known.
    let mut world = held();
    world.minute = week + 2 * day;
    assert_eq!(words(&said(&world.judge())), ["silent"]);
    // The first answer after two days names it: its reset only waits for the second.
    let named = View { named_at: Some(at(world.minute)), ..world.views[fable].clone() };
    world.views.insert(fable.to_owned(), named);
    world.views.insert(saga.to_owned(), view(saga, week, 10.0, world.minute));
    assert!(said(&world.judge()).is_empty());
    assert_eq!(words(&world.poll(&[(fable, week, 1.0), (saga, week, 10.0)])), ["starts"]);
    // A person has overridden it: the rule acts on the account's other limits again.
    let mut world = held();
    world.person(Will::Start);
    assert_eq!(words(&world.poll(&[(fable, 0, 95.0), (saga, 0, 10.0)])), ["overridden"]);
    world.minute = week + day;
    world.poll(&[(saga, week, 95.0)]);
    assert_eq!(words(&world.poll(&[(saga, week, 95.0)])), ["stops"]);
}

#[test]
fn a_workstation_that_sleeps_is_told_of_once_while_it_holds_a_target() {
    let mut world = World::new(vec![rule("night", "weekly_all", 90.0)]);
    world.settings.pushed = vec!["work".to_owned()];
    world.poll(&[(WEEK, 0, 50.0)]);
    world.minute += 8 * 60;
    assert!(world.judge().is_empty(), "nothing is held: its silence is nobody's matter");
    world.poll(&[(WEEK, 0, 95.0)]);
    world.poll(&[(WEEK, 0, 95.0)]);
    let mut told = Vec::new();
    for _night in 0..3 {
        world.minute += 8 * 60;
        told.extend(said(&world.judge()));
        told.extend(world.poll(&[(WEEK, 0, 95.0)]));
    }
    assert_eq!(told, [News::Silent { grave: false }]);
    assert!(!told[0].is_grave(), "nobody is woken for it");
}

#[test]
fn a_workstation_that_sleeps_keeps_nothing_down_that_it_does_not_hold() {
    let laptop = "laptop/weekly_all";
    for rules in [vec![rule("all", "weekly_all", 90.0)], vec![rule("office", WEEK, 90.0), rule("desk", laptop, 90.0)]] {
        let mut world = World::new(rules);
        world.settings.pushed = vec!["laptop".to_owned()];
        world.poll(&[(WEEK, 0, 95.0), (laptop, 0, 10.0)]);
        assert_eq!(words(&world.poll(&[(WEEK, 0, 95.0), (laptop, 0, 10.0)])), ["stops"]);
        world.minute += 60;
        assert!(world.poll(&[(WEEK, 0, 95.0)]).is_empty(), "its sleep is nobody's matter");
        assert_eq!(words(&world.poll(&[(WEEK, 100, 0.0)])), ["starts"]);
        assert!(world.replicas == 2 && world.poll(&[(WEEK, 100, 1.0)]).is_empty());
    }
}

#[test]
fn what_a_sleeping_workstation_still_holds_is_explained_once_each_time_another_lets_go() {
    let laptop = "laptop/weekly_all";
    let mut world = World::new(vec![rule("office", WEEK, 90.0), rule("desk", laptop, 90.0)]);
    world.settings.pushed = vec!["laptop".to_owned()];
    for percent in [10.0, 10.0, 95.0, 95.0] {
        world.poll(&[(WEEK, 0, 95.0), (laptop, 0, percent)]);
    }
    assert_eq!(world.replicas, 0);
    let heard = Some(at(world.minute));
    world.minute += 8 * 60;
    assert_eq!(world.poll(&[(WEEK, 0, 95.0)]), [News::Silent { grave: false }], "of the rule that holds it");
    let kept = [News::Kept(vec![holds("desk", laptop, heard)])];
    assert_eq!(world.poll(&[(WEEK, 100, 0.0)]), kept);
    assert!(kept[0].is_deed() && !kept[0].is_grave(), "told whatever is muted, and nobody is woken for it");
    for _ in 0..3 {
        assert!(world.poll(&[(WEEK, 100, 1.0)]).is_empty());
    }
    // The other one fills up once more and promises once more.
    world.poll(&[(WEEK, 100, 95.0)]);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 95.0)])), ["stops"]);
    assert_eq!(world.poll(&[(WEEK, 200, 0.0)]), kept);
    // It wakes, as full as it was.
    assert!(world.poll(&[(WEEK, 200, 0.0), (laptop, 0, 95.0)]).is_empty() && world.replicas == 0);
}

#[test]
fn an_account_that_should_answer_keeps_down_what_another_lets_go_and_is_named() {
    let home = "home/weekly_all";
    let mut world = World::new(vec![rule("office", WEEK, 90.0), rule("house", home, 90.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (home, 0, 10.0)]);
    }
    let since = at(world.minute);
    world.minute += 60;
    assert_eq!(world.poll(&[(WEEK, 0, 95.0)]), [News::Silent { grave: true }]);
    let silent = Keeper::Silent { rule: "house".to_owned(), account: "home".to_owned(), since };
    assert_eq!(world.poll(&[(WEEK, 100, 0.0)]), [News::Kept(vec![silent])]);
    assert!(world.poll(&[(WEEK, 100, 1.0)]).is_empty() && world.replicas == 0);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 1.0), (home, 0, 10.0)])), ["starts"]);
}

#[test]
fn a_limit_that_no_workstation_knows_is_missed_when_the_endpoint_is_silent() {
    let fable = "work/weekly_scoped/Fable";
    let mut world = World::new(vec![rule("models", "weekly_scoped", 90.0), rule("office", WEEK, 90.0)]);
    for _ in 0..2 {
        world.poll(&[(WEEK, 0, 95.0), (fable, 0, 10.0)]);
    }
    assert_eq!(world.replicas, 0);
    let heard = at(world.minute);
    // The endpoint fails, and a workstation goes on to push what it knows.
    let push = |world: &mut World, cycle: i64, percent: f64| {
        world.minute += 16;
        let pushed = View { answered_at: Some(heard), ..view(WEEK, cycle, percent, world.minute) };
        world.views.insert(WEEK.to_owned(), pushed);
        said(&world.judge())
    };
    assert_eq!(push(&mut world, 0, 95.0), [News::Silent { grave: true }]);
    assert!(push(&mut world, 0, 96.0).is_empty(), "once");
    let silent = Keeper::Silent { rule: "models".to_owned(), account: fable.to_owned(), since: heard };
    assert_eq!(push(&mut world, 100, 0.0), [News::Kept(vec![silent])]);
    assert_eq!(words(&world.poll(&[(WEEK, 100, 1.0), (fable, 0, 10.0)])), ["starts"]);
}
