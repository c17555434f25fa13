//! What holds whatever happens, in whichever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// So many minutes pass, without a sample.
    Wait(i64),
    /// A sample, so many points fuller than the last.
    Sample(usize, f64),
    /// A new window, seen once; perhaps it is already proven.
    Reset(usize, f64, bool),
    /// Another account with so much used, which is proven at once.
    Switch(usize, f64),
    /// A person in the room.
    Person(Will),
    /// Somebody elsewhere.
    Kubectl(i32),
    /// The API server goes, or comes.
    Away(bool),
    /// The operator does what is open.
    Operate,
}

/// The desk is nobody asked for: it pushes, and sleeps.
const BUCKETS: [&str; 4] = ["work/weekly_all", "work/session", "home/weekly_all", "desk/weekly_all"];

fn op() -> impl Strategy<Value = Op> {
    let will = prop_oneof![Just(Will::Start), Just(Will::Stop)];
    prop_oneof![
        1 => (1_i64..40).prop_map(Op::Wait),
        6 => (0..BUCKETS.len(), 0.0..40.0).prop_map(|(bucket, more)| Op::Sample(bucket, more)),
        3 => (0..BUCKETS.len(), 0.0..95.0, any::<bool>()).prop_map(|(bucket, percent, sure)| Op::Reset(bucket, percent, sure)),
        1 => (0..BUCKETS.len(), 0.0..95.0).prop_map(|(bucket, percent)| Op::Switch(bucket, percent)),
        1 => will.prop_map(Op::Person),
        1 => (0_i32..4).prop_map(Op::Kubectl),
        1 => any::<bool>().prop_map(Op::Away),
        6 => Just(Op::Operate),
    ]
}

/// A world whose hands are watched.
struct Watched {
    world: World,
    /// The guard has stopped it, and nobody else has touched it since.
    is_guards: bool,
    /// The stop that took the replicas away last, and those that were let go of.
    stopped_by: String,
    let_go: Vec<String>,
    /// Stops asked for, by rule, bucket and cycle.
    stops: BTreeMap<(String, String, Timestamp), Vec<String>>,
}

impl Watched {
    fn apply(&mut self, op: &Op) {
        let world = &mut self.world;
        match op {
            Op::Wait(minutes) => world.minute += minutes,
            Op::Sample(bucket, more) => {
                world.minute += 2;
                let name = BUCKETS[*bucket];
                let old = world.views.get(name).cloned().unwrap_or_else(|| view(name, 0, 0.0, 0));
                let fuller =
                    View { percent: (old.percent + more).min(100.0), at: at(world.minute), confirmed: true, ..old };
                world.views.insert(name.to_owned(), fuller);
            }
            Op::Reset(bucket, percent, confirmed) => {
                world.minute += 2;
                let new =
                    View { confirmed: *confirmed, ..view(BUCKETS[*bucket], world.minute, *percent, world.minute) };
                world.views.insert(BUCKETS[*bucket].to_owned(), new);
            }
            Op::Switch(bucket, percent) => {
                // What is on its way then has a test of its own.
                self.operate();
                let world = &mut self.world;
                world.minute += 2;
                let new = View { switched: true, ..view(BUCKETS[*bucket], world.minute, *percent, world.minute) };
                world.views.insert(BUCKETS[*bucket].to_owned(), new);
            }
            Op::Person(will) => {
                self.operate();
                self.world.person(*will);
                self.is_guards = false;
            }
            Op::Kubectl(replicas) => {
                if *replicas != world.replicas {
                    world.scale(*replicas);
                    self.is_guards = false;
                }
            }
            Op::Away(away) => world.away = *away,
            Op::Operate => self.operate(),
        }
    }

    /// Another rule has stopped it, too, and gives it back.
    fn is_owned(&self) -> bool {
        self.world.states.values().any(|state| state.own.is_some())
    }

    fn operate(&mut self) {
        for n in 0..self.world.rows.len() {
            if self.world.rows[n].course != Course::Open {
                continue;
            }
            let (will, was) = (self.world.rows[n].will, self.is_guards);
            let course = self.world.perform(n);
            self.world.rows[n].course = course;
            self.world.rows[n].generation = self.world.generation;
            match (will, course) {
                (Will::Stop, Course::Moved) => {
                    let event = self.world.rows[n].event.clone().unwrap_or_default();
                    self.is_guards = !self.let_go.contains(&event) || self.is_owned();
                    self.stopped_by = event;
                }
                (Will::Start, Course::Moved) => {
                    assert!(was, "started what it did not stop, or what somebody else has touched");
                    self.is_guards = false;
                }
                _ => {}
            }
        }
    }

    fn judge(&mut self) {
        let before = self.world.states.clone();
        let pasts = self.world.pasts();
        let actions = self.world.judge();
        for action in &actions {
            if let Action::Say(Notice { rule, news: News::Switched, .. }) = action {
                // Left stopped, and said so.
                for (key, state) in before.iter().filter(|(key, _)| key.rule == *rule) {
                    let own = state.own.as_ref().map(|own| own.event(key, Will::Stop));
                    self.let_go.extend(state.stop_event(key).into_iter().chain(own));
                }
                self.is_guards &= !self.let_go.contains(&self.stopped_by) || self.is_owned();
            }
            let Action::Request(request) = action else { continue };
            self.hold_request(request, &pasts, &before);
        }
        self.hold_reasons(&before, &pasts, &actions);
        let states = self.world.states.clone();
        assert_eq!(self.world.judge(), [], "the same sample is no news");
        assert_eq!(self.world.states, states);
    }

    /// Whatever stays down although its own limit lets it go: why is told, once, and it is true.
    fn hold_reasons(&self, before: &BTreeMap<Key, State>, pasts: &BTreeMap<Key, Past>, actions: &[Action]) {
        let states = &self.world.states;
        for action in actions {
            let Action::Say(Notice { rule, news: News::Kept(keepers), .. }) = action else { continue };
            let key = |rule: &str| Key { rule: rule.to_owned(), target: LLAMA.to_owned() };
            let told = before.get(&key(rule)).filter(|state| state.kept && state.outlived().is_some());
            assert!(told.is_none_or(|state| state.own != states[&key(rule)].own), "told twice");
            assert!(!keepers.is_empty());
            for keeper in keepers {
                match keeper {
                    Keeper::Holds { rule, bucket, .. } => assert!(states[&key(rule)].claims[bucket].held.is_some()),
                    Keeper::Silent { account, .. } => assert_ne!(account, "desk"),
                }
            }
        }
        let owning = states.iter().filter_map(|(key, state)| Some((state.own.as_ref()?.at, key, state)));
        let Some((_, key, state)) = owning.max_by_key(|(at, key, _)| (*at, (*key).clone())) else { return };
        let failed = matches!(pasts.get(key).and_then(|past| past.stop), Some(Course::Failed { .. }));
        let waits = state.outlived().is_some() && state.start.is_none() && !failed;
        let open = pasts.get(key).is_some_and(|past| past.stop == Some(Course::Open));
        assert!(!waits || state.kept || open, "{key:?} stays down without a word: {states:#?}");
    }

    fn hold_request(&mut self, request: &Request, pasts: &BTreeMap<Key, Past>, before: &BTreeMap<Key, State>) {
        let world = &self.world;
        let asked = |state: &State| match request.will {
            Will::Stop => state.stop.clone(),
            Will::Start => state.start.clone(),
        };
        let is_it = |key: &Key, state: &State| match request.will {
            Will::Stop => state.stop_event(key).as_ref() == Some(&request.event),
            Will::Start => state.start_event(key).as_ref() == Some(&request.event),
        };
        let (key, state) = world.states.iter().find(|(key, state)| is_it(key, state)).expect("the state knows it");
        let asked = asked(state).unwrap();
        let now = at(world.minute);
        match request.will {
            Will::Stop => {
                assert!(!world.settings.is_stale(world.views[&asked.bucket].at, now), "a stop on stale data");
                let name = (key.rule.clone(), asked.bucket.clone(), asked.cycle);
                let earlier = self.stops.entry(name).or_default();
                let failed = matches!(pasts.get(key).and_then(|past| past.stop), Some(Course::Failed { .. }));
                assert!(earlier.is_empty() || failed, "two stops in one window");
                earlier.push(request.event.clone());
            }
            Will::Start => {
                for account in ["work", "home"] {
                    let ages = world.views.values().filter(|view| view.bucket.account == account).map(|view| view.at);
                    let silent = ages.max().is_some_and(|last| world.settings.is_stale(last, now));
                    assert!(!silent, "a start on stale data");
                }
                assert!(world.states.values().all(|state| !state.holds()), "a start of what a rule wants down");
                let own = before[key].stop_event(key);
                let stopped = world.rows.iter().position(|row| row.event.is_some() && row.event == own);
                let since = &world.rows[stopped.expect("a stop came before")..];
                assert!(since.iter().all(|row| row.event.is_some()), "a start after a person's order");
            }
        }
    }
}

fn watched() -> Watched {
    let rules = vec![rule("week", "weekly_all", 60.0), rule("hours", "work/session", 80.0)];
    let mut world = World::new(rules);
    world.settings.pushed = vec!["desk".to_owned()];
    Watched { world, is_guards: false, stopped_by: String::new(), let_go: vec![], stops: BTreeMap::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_starts_only_what_it_stopped_never_stops_twice_and_gives_back_in_the_end(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut watched = watched();
        for op in &ops {
            watched.apply(op);
            watched.judge();
        }
        // Everything resets, and everybody answers: what is the guard's is given back.
        watched.world.away = false;
        for _ in 0..40 {
            let minute = watched.world.minute + 10;
            watched.world.minute = minute;
            for bucket in BUCKETS {
                watched.world.views.insert(bucket.to_owned(), view(bucket, 1_000_000, 0.0, minute));
            }
            watched.judge();
            watched.operate();
        }
        prop_assert!(!watched.is_guards, "kept what it should give back: {:#?}", watched.world.states);
        prop_assert!(watched.world.states.is_empty(), "remembers what is over: {:#?}", watched.world.states);
    }
}
