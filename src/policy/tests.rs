use super::*;

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

fn rules() -> Rules {
    Rules {
        users: set(["@alice:hs".to_owned(), "@bob:hs".to_owned()]),
        grants: vec![],
        bounds: vec![
            Bounds { name: "web".to_owned(), replicas: 1, max_replicas: 10 },
            Bounds { name: "gpu".to_owned(), replicas: 2, max_replicas: 2 },
        ],
        staleness: SignedDuration::from_mins(5),
        pins_devices: false,
        guarded: set(["gpu".to_owned()]),
    }
}

fn person(user: &str) -> Actor {
    Actor::Person(user.to_owned())
}

fn start(target: &str, replicas: Option<u32>) -> Command {
    Command::Start { targets: vec![target.to_owned()], replicas, all: false }
}

fn judged(rules: &Rules, user: &str, command: &Command) -> Result<Vec<Order>, Refusal> {
    judge(rules, &person(user), &Standing::Proven, command)
}

#[test]
fn strangers_are_refused_before_anything_else() {
    let standing = Standing::Unproven(Why::PlaintextRoom);
    assert_eq!(judge(&rules(), &person("@eve:hs"), &standing, &Command::Version), Err(Refusal::Stranger));
}

#[test]
fn nothing_unproven_counts_not_even_reading() {
    for why in [Why::PlaintextRoom, Why::Replayed, Why::UnsignedDevice { device: "X".to_owned() }] {
        let standing = Standing::Unproven(why.clone());
        for command in [Command::Version, Command::Help(None), start("web", None)] {
            assert_eq!(judge(&rules(), &person("@alice:hs"), &standing, &command), Err(Refusal::Unproven(why.clone())));
        }
    }
}

#[test]
fn start_is_bounded_and_zero_is_not_a_start() {
    assert!(judged(&rules(), "@alice:hs", &start("web", Some(10))).is_ok());
    assert_eq!(
        judged(&rules(), "@alice:hs", &start("web", Some(11))),
        Err(Refusal::TooMany { target: "web".to_owned(), max: 10 })
    );
    assert_eq!(
        judged(&rules(), "@alice:hs", &start("web", Some(u32::MAX))),
        Err(Refusal::TooMany { target: "web".to_owned(), max: 10 })
    );
    assert_eq!(judged(&rules(), "@alice:hs", &start("web", Some(0))), Err(Refusal::StartZero));
}

#[test]
fn rules_join_users_verbs_and_targets() {
    let mut rules = rules();
    rules.grants = vec![
        Grant { users: set(["@alice:hs".to_owned()]), ..Grant::default() },
        Grant {
            users: set(["@bob:hs".to_owned()]),
            verbs: set([Verb::Status, Verb::Start]),
            targets: set(["web".to_owned()]),
        },
    ];
    assert!(judged(&rules, "@alice:hs", &start("gpu", None)).is_ok());
    assert!(judged(&rules, "@bob:hs", &start("web", None)).is_ok());
    assert_eq!(
        judged(&rules, "@bob:hs", &start("gpu", None)),
        Err(Refusal::NotAllowed { verb: Verb::Start, target: Some("gpu".to_owned()) })
    );
    let all = Command::Start { targets: vec!["web".to_owned(), "gpu".to_owned()], replicas: None, all: true };
    assert_eq!(judged(&rules, "@bob:hs", &all).map(|orders| orders.len()), Ok(1));
    let both = Command::Start { targets: vec!["web".to_owned(), "gpu".to_owned()], replicas: None, all: false };
    assert!(judged(&rules, "@bob:hs", &both).is_err());
    let stop = Command::Stop { targets: vec!["web".to_owned()], all: false };
    assert_eq!(judged(&rules, "@bob:hs", &stop), Err(Refusal::NotAllowed { verb: Verb::Stop, target: None }));
    match judged(&rules, "@bob:hs", &Command::Status(vec![])).as_deref() {
        Ok([Order::Tell(tell)]) => assert_eq!(tell.topic(), &Topic::Status(vec!["web".to_owned()])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_vouches_for_themselves_but_the_machine_may() {
    let accept = |user: &str| Command::Accept { user: user.to_owned(), device: None, fingerprint: "k".repeat(43) };
    assert_eq!(judged(&rules(), "@alice:hs", &accept("@alice:hs")), Err(Refusal::OwnKey));
    assert!(judged(&rules(), "@bob:hs", &accept("@alice:hs")).is_ok());
    assert!(judge(&rules(), &Actor::Machine, &Standing::Proven, &accept("@alice:hs")).is_ok());
    assert_eq!(judged(&rules(), "@bob:hs", &accept("@eve:hs")), Err(Refusal::NotAPerson("@eve:hs".to_owned())));
}

#[test]
fn the_usage_guard_stops_and_starts_what_its_rules_name_and_nothing_else() {
    let guard = |command: &Command| judge(&rules(), &Actor::UsageGuard, &Standing::Proven, command);
    let stop = |target: &str| Command::Stop { targets: vec![target.to_owned()], all: false };
    assert!(matches!(guard(&stop("gpu")).as_deref(), Ok([Order::Scale(scale)]) if scale.resolve(2, None) == Some(0)));
    assert!(
        matches!(guard(&start("gpu", None)).as_deref(), Ok([Order::Scale(scale)]) if scale.resolve(0, Some(2)) == Some(2))
    );
    for command in [
        stop("web"),
        start("web", None),
        start("gpu", Some(1)),
        Command::Stop { targets: vec!["gpu".to_owned()], all: true },
        Command::Restart { targets: vec!["gpu".to_owned()], all: false },
        Command::Status(vec![]),
        Command::Help(None),
        Command::Accept { user: "@bob:hs".to_owned(), device: None, fingerprint: "k".repeat(43) },
    ] {
        assert!(matches!(guard(&command), Err(Refusal::Unguarded { .. })), "{command:?}");
    }
    // Its name gives nobody its rights.
    assert_eq!(judged(&rules(), GUARD, &stop("gpu")), Err(Refusal::Stranger));
}

#[test]
fn what_is_believed_without_proof_moves_the_cluster_and_no_pin() {
    let accept = Command::Accept { user: "@alice:hs".to_owned(), device: None, fingerprint: "k".repeat(43) };
    let bob = person("@bob:hs");
    for command in [Command::Version, Command::Trust, start("web", Some(2))] {
        assert!(judge(&rules(), &bob, &Standing::Believed, &command).is_ok(), "{command:?}");
    }
    assert_eq!(judge(&rules(), &bob, &Standing::Believed, &accept), Err(Refusal::PinNeedsProof));
    assert!(judge(&rules(), &bob, &Standing::Proven, &accept).is_ok());
}

#[test]
fn an_order_becomes_absolute() {
    let scale = |replicas| Scale { target: "web".to_owned(), replicas };
    let remembered = scale(Replicas::Remembered { configured: 1, max: 4 });
    // (order, desired now, remembered) -> wanted
    for (order, desired, memory, wanted) in [
        (scale(Replicas::Zero), 3, None, Some(0)),
        (scale(Replicas::Zero), 0, None, None),
        (scale(Replicas::Exactly(2)), 0, Some(5), Some(2)),
        (scale(Replicas::Exactly(2)), 2, None, None),
        (remembered.clone(), 0, None, Some(1)),
        (remembered.clone(), 0, Some(3), Some(3)),
        (remembered.clone(), 0, Some(9), Some(4)),
        (remembered, 2, Some(3), None),
    ] {
        assert_eq!(order.resolve(desired, memory), wanted, "{order:?} at {desired}, remembered {memory:?}");
    }
}

#[test]
fn staleness_is_the_homeservers_time_against_ours() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    assert!(!rules().is_stale(now - SignedDuration::from_mins(5), now));
    assert!(rules().is_stale(now - SignedDuration::from_millis(300_001), now));
    assert!(!rules().is_stale(now + SignedDuration::from_mins(1), now));
}

#[test]
fn a_history_tells_of_keys_only_whom_trust_would_tell_and_where_no_target_is_named() {
    let beside = |rules: &Rules, named: Option<&str>| match judged(
        rules,
        "@bob:hs",
        &Command::History(named.map(str::to_owned)),
    )
    .as_deref()
    {
        Ok([Order::Tell(tell)]) => match tell.topic() {
            Topic::History { verbs, .. } => verbs.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(beside(&rules(), None), [Verb::Trust, Verb::Usage]);
    assert_eq!(beside(&rules(), Some("web")), []);
    let looks = Grant { verbs: set([Verb::History, Verb::Status]), ..Grant::default() };
    assert_eq!(beside(&Rules { grants: vec![looks], ..rules() }, None), []);
}

#[test]
fn who_may_do_nothing_with_a_target_is_not_told_its_name() {
    let grant = |user: &str, verbs: &[Verb], target: &str| Grant {
        users: set([user.to_owned()]),
        verbs: verbs.iter().copied().collect(),
        targets: set([target.to_owned()]),
    };
    let grants = vec![
        grant("@alice:hs", &[Verb::Status, Verb::Help], "web"),
        grant("@bob:hs", &[Verb::Help, Verb::Version], "gpu"),
    ];
    let rules = Rules { grants, ..rules() };
    assert_eq!(known(&rules, &person("@alice:hs")), ["web"]);
    assert_eq!(known(&rules, &person("@bob:hs")), [""; 0]);
    assert_eq!(known(&rules, &Actor::Machine), ["web", "gpu"]);
}
