//! The usage guard on real parts: what a limit stops, what its reset gives back, and what people and kubectl keep. The
//! samples are the test's; journal, operator, API server and room are what they always are.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use pilothouse::config::{Config, Sources};
use pilothouse::message::{Address, GUARD, Message, Standing};
use pilothouse::store::inbox::{self, Arrival, Entry};
use pilothouse::store::orders::{Done, Started};
use pilothouse::store::{Store, outcome};
use pilothouse::usage::guard::{Guard, Key, State, Stepped, View};
use serde_json::json;

use crate::support::control_plane::{Namespace, with_namespace};
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::person::RoomEvent;
use crate::support::subscribed::log_in;

const BUCKET: &str = "work/weekly_all";

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a test happens now")]
    Timestamp::now()
}

/// A login, so that an account is watched.
fn logged_in() -> Folder {
    let folder = Folder::new("pilothouse-login-");
    log_in(&folder);
    folder
}

/// These targets, with one rule on `web`. Of the account nobody answers: what is known of it, each test says itself.
fn plan(targets: &[&'static str], acts: &str, login: &Folder) -> Plan {
    let more = format!(
        "[[usage.accounts]]\nname = \"work\"\ndirectory = \"{}\"\nusage_url = \"http://127.0.0.1:9/\"\n\
         [[usage.rules]]\nname = \"night\"\nbucket = \"weekly_all\"\npercent = 90\nstop = [\"web\"]\nmode = {acts:?}\n",
        login.path().display()
    );
    Plan { more, ..Plan::of(targets) }
}

/// The guard beside a running daemon, on the daemon's own store and configuration.
struct Beside {
    guard: Guard,
    store: Store,
    login: Folder,
}

impl Beside {
    /// A house whose room is known, and the guard beside it.
    async fn build(namespace: &Namespace, targets: &[&'static str], acts: &str) -> (House, Self) {
        let login = logged_in();
        let house = House::build(namespace, plan(targets, acts, &login)).await;
        house.ask("version").await;
        let beside = Self::new(&house, login);
        (house, beside)
    }

    fn new(house: &House, login: Folder) -> Self {
        let folder = house.pilothouse.store.path();
        let sources = Sources { argument: Some(folder.join("pilothouse.toml")), environment: [].into(), usual: vec![] };
        let config = Config::load(&sources).expect("the daemon took it, too").config;
        let guard = Guard::new(pilothouse::daemon::guard(&config));
        let store = Store::open(&house.pilothouse.database()).expect("opened");
        Self { guard, store, login }
    }

    /// One sample of the window that began `cycle` hours after the epoch.
    async fn sample(&self, cycle: i64, percent: f64) -> Stepped {
        let view = View {
            bucket: BUCKET.parse().expect("a bucket"),
            cycle: Timestamp::from_second(cycle * 3600).expect("a time"),
            confirmed: true,
            switched: false,
            answered_at: None,
            named_at: None,
            percent,
            probability: None,
            at: now(),
            resets_at: Some(now() + SignedDuration::from_hours(24)),
        };
        self.guard.step(&self.store, vec![view], now()).await.expect("a step")
    }

    async fn state(&self) -> Option<State> {
        let row = self.store.guard(|ledger| Ok(ledger.states()?.pop())).await.expect("read");
        row.map(|(_, _, json)| serde_json::from_str(&json).expect("JSON"))
    }

    /// Waits until the operator is done with what was asked for last.
    async fn done(&self, event: impl Fn(&State, &Key) -> Option<String>) -> Entry {
        let state = self.state().await.expect("a state");
        let key = Key { rule: "night".to_owned(), target: "web".to_owned() };
        let event = event(&state, &key).expect("something was asked for");
        let ended = async {
            loop {
                let event = event.clone();
                let entry = self.store.guard(move |ledger| ledger.entry(&event)).await.expect("read").expect("a row");
                if matches!(entry.state, inbox::State::Done | inbox::State::Told) {
                    return entry;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, ended).await.expect("it is done in time")
    }

    /// A row in the guard's name that no rule has made.
    async fn ask(&self, house: &House, event: &str, text: &str) {
        let message = Message {
            who: GUARD.to_owned(),
            room: house.room.clone(),
            event: event.to_owned(),
            text: text.to_owned(),
            sent_at: now(),
            thread: None,
            device: None,
            standing: Standing::Proven,
            address: Address::Mentioned,
        };
        let arrival = Arrival {
            event: message.event.clone(),
            room: message.room.clone(),
            sender: message.who.clone(),
            sent_at: message.sent_at,
            payload: serde_json::to_string(&message).expect("JSON"),
            waiting_for: None,
        };
        self.store.receive(vec![arrival], None, now()).await.expect("written");
    }

    /// Two samples over the limit, and the stop that follows.
    async fn stop(&self, cycle: i64) -> Entry {
        self.sample(cycle, 95.0).await;
        assert_eq!(self.sample(cycle, 96.0).await, Stepped { requests: 1, notices: 1 });
        self.done(State::stop_event).await
    }

    /// The confirmed reset, and the start that follows.
    async fn reset(&self, cycle: i64) -> Entry {
        assert_eq!(self.sample(cycle, 0.0).await, Stepped { requests: 1, notices: 1 });
        self.done(State::start_event).await
    }
}

/// An order for `web` as the operator writes it.
fn work(namespace: &Namespace, (from, to): (i32, i32), object: &Deployment, more: i64) -> String {
    let target = json!({
        "name": "web", "label": "web", "kind": "Deployment", "namespace": namespace.name, "object": "web",
    });
    let change = json!({ "scale": { "from": from, "to": to } });
    let version = json!({
        "uid": object.metadata.uid.as_deref().expect("a uid"),
        "generation": object.metadata.generation.expect("a generation") + more,
    });
    json!({ "target": target, "change": change, "owners": [], "version": version }).to_string()
}

/// What `kubectl scale` does.
async fn kubectl_scale(namespace: &Namespace, name: &str, replicas: i32) {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    namespace.api::<Deployment>().patch_scale(name, &PatchParams::default(), &patch).await.expect("scaled");
}

fn says<'a>(house: &'a House, text: &'a str) -> impl Fn(&RoomEvent) -> bool + 'a {
    move |event| event.sender == house.bot.user_id && event.body().contains(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_limit_stops_and_its_reset_gives_back_over_a_kill_between() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let (mut house, beside) = Beside::build(&namespace, &["web"], "act").await;
        let stop = beside.stop(1).await;
        assert_eq!(namespace.replicas("web").await, 0, "{stop:?}");
        let why = house.person.expect(SOON, says(&house, "Stopping web until the reset")).await;
        assert!(why.encrypted && why.replies_to().is_none(), "{}", why.body());
        let told = house.person.expect(SOON, says(&house, "web is stopped")).await;
        assert!(told.replies_to().is_none(), "it answers nobody: {}", told.body());
        let history = house.ask("history").await;
        assert!(history.body().contains("usage guard: stop web → scaled 2 → 0"), "{}", history.body());

        house.running.kill().await;
        assert_eq!(beside.sample(1, 96.0).await, Stepped::default());
        beside.sample(2, 0.0).await;
        house.start_again().await;
        beside.done(State::start_event).await;
        assert_eq!(namespace.replicas("web").await, 2);
        house.person.expect(SOON, says(&house, "is confirmed: starting web again")).await;
        house.person.expect(SOON, says(&house, "ready: 2/2")).await;
        assert_eq!(beside.sample(2, 1.0).await, Stepped::default());
        assert_eq!(beside.state().await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_finds_nothing_to_stop_says_so_and_starts_nothing_later() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let (house, beside) = Beside::build(&namespace, &["web"], "act").await;
        beside.stop(1).await;
        house.person.expect(SOON, says(&house, "Stopping web until the reset")).await;
        house.person.expect(SOON, says(&house, "web is already stopped; nothing was changed")).await;
        assert_eq!(beside.sample(2, 0.0).await, Stepped::default());
        assert_eq!(namespace.replicas("web").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_stop_is_found_behind_many_that_found_nothing_to_stop() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let (mut house, beside) = Beside::build(&namespace, &["web"], "act").await;
        beside.stop(1).await;
        let object = namespace.api::<Deployment>().get("web").await.expect("there");
        house.running.kill().await;
        // What another rule leaves behind in a week whose 5-hour windows fill up, one after the other.
        for n in 0..60 {
            let event = format!("guard/futile-{n}");
            beside.ask(&house, &event, "stop web").await;
            let entry = beside.store.guard(move |ledger| ledger.entry(&event)).await.expect("read").expect("a row");
            let target = Some(format!("Deployment/{}/web", namespace.name));
            let work = Some(work(&namespace, (0, 0), &object, 0));
            let done = Done { target, work, ..Done::silent(entry.id, outcome::UNCHANGED) };
            beside.store.finish(done, now()).await.expect("written");
        }
        assert_eq!(beside.sample(2, 0.0).await, Stepped { requests: 1, notices: 1 });
        house.start_again().await;
        let start = beside.done(State::start_event).await;
        assert_eq!(namespace.replicas("web").await, 2, "{start:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_scaled_since_is_left_alone_even_if_it_looks_the_same() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let (house, beside) = Beside::build(&namespace, &["web"], "act").await;
        beside.stop(1).await;
        kubectl_scale(&namespace, "web", 1).await;
        kubectl_scale(&namespace, "web", 0).await;
        let left = beside.reset(2).await;
        assert_eq!(left.outcome.as_deref(), Some("left alone: changed since"));
        assert_eq!(namespace.replicas("web").await, 0);
        house.person.expect(SOON, says(&house, "leaves it as it is: stopped. start web starts it.")).await;

        // And what runs is left running.
        assert_eq!(beside.sample(2, 0.0).await, Stepped::default());
        house.ask_until("start web 2", "ready: 2/2").await;
        beside.stop(2).await;
        kubectl_scale(&namespace, "web", 3).await;
        beside.reset(3).await;
        assert_eq!(namespace.replicas("web").await, 3);
        house.person.expect(SOON, says(&house, "leaves it as it is: 3 replicas.")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_overrides_the_guard_and_takes_over_from_it() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let (house, beside) = Beside::build(&namespace, &["web"], "act").await;
        beside.stop(1).await;
        house.ask_until("start", "ready: 2/2").await;
        // The daemon's own guard may have seen it first; the words are read below.
        assert_eq!(beside.sample(1, 97.0).await.requests, 0);
        assert_eq!(beside.sample(1, 99.0).await, Stepped::default());
        assert_eq!(namespace.replicas("web").await, 2);

        // The next window is another matter.
        beside.stop(2).await;
        house.person.expect(SOON, says(&house, "has started web: the rule night lets it run until the reset")).await;
        assert_eq!(namespace.replicas("web").await, 0);
        let already = house.ask("stop").await;
        assert!(already.body().contains("already stopped"), "{}", already.body());
        assert_eq!(beside.sample(2, 97.0).await.requests, 0);
        assert_eq!(beside.sample(3, 0.0).await, Stepped::default());
        assert_eq!(namespace.replicas("web").await, 0);
        // Somebody else's command wakes what waits to go out.
        house.ask("version").await;
        house.person.expect(SOON, says(&house, "so the rule night will not start it after the reset")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_may_do_what_an_acting_rule_names_and_observing_is_only_speaking() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 2).await;
        namespace.deployment("db", "fine", 1).await;
        let (house, beside) = Beside::build(&namespace, &["web", "db"], "observe").await;
        beside.sample(1, 95.0).await;
        assert_eq!(beside.sample(1, 95.0).await, Stepped { requests: 0, notices: 1 });
        assert_eq!(beside.sample(2, 0.0).await, Stepped { requests: 0, notices: 1 });
        // Whatever asks in its name: policy knows what it may.
        for target in ["db", "web"] {
            beside.ask(&house, &format!("guard/{target}"), &format!("stop {target}")).await;
            let refusal = format!("The usage guard may not stop {target}: no rule with mode = \"act\" names it.");
            house.person.expect(SOON, says(&house, &refusal)).await;
        }
        house.person.expect(SOON, says(&house, "I would stop web now, but this rule only observes")).await;
        house.person.expect(SOON, says(&house, "I would start web again now")).await;
        assert_eq!((namespace.replicas("web").await, namespace.replicas("db").await), (2, 1));

        // The rule may act from now on, without a restart.
        let (bot, person) = (&house.bot, &house.person.user_id);
        let toml = plan(&["web", "db"], "act", &beside.login).toml(&house.synapse, bot, person, &namespace.name);
        house.pilothouse.write_configuration(&toml);
        house.running.signal("HUP");
        house.running.line("rules and targets were read again", SOON).await;
        beside.ask(&house, "guard/again", "stop web").await;
        let so = |object: &Deployment| object.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
        namespace.wait::<Deployment>("web", SOON, so).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_of_the_guard_that_a_kill_interrupted_is_finished_only_where_nobody_came_between() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let (mut house, beside) = Beside::build(&namespace, &["web"], "act").await;
        for (cycle, meddled) in [(1, false), (3, true)] {
            beside.stop(cycle).await;
            house.running.kill().await;
            // The order is written, and the process dies before it acts.
            beside.sample(cycle + 1, 0.0).await;
            let entries = beside.store.received(10).await.expect("read");
            let start = entries.into_iter().find(|entry| entry.sender == GUARD).expect("a start");
            let object = namespace.api::<Deployment>().get("web").await.expect("there");
            let work = work(&namespace, (0, 2), &object, 1);
            let target = format!("Deployment/{}/web", namespace.name);
            let started = Started { id: start.id, target, work, remember: None, progress: None, superseded: vec![] };
            beside.store.start(started, now()).await.expect("written");
            if meddled {
                kubectl_scale(&namespace, "web", 1).await;
                kubectl_scale(&namespace, "web", 0).await;
            }
            house.start_again().await;
            let done = beside.done(State::start_event).await;
            assert_eq!(namespace.replicas("web").await, if meddled { 0 } else { 2 }, "{done:?}");
            beside.sample(cycle + 1, 0.0).await;
        }
        house.person.expect(SOON, says(&house, "was interrupted during this start")).await;
    })
    .await;
}
