//! What the subscription's watcher tells, in a real room: what a person must act on, once, however often it is started; and
//! what becomes of words and stops while something between them is away.

use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::control_plane::with_namespace;
use crate::support::free_port;
use crate::support::front::{Front, Way};
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::person::RoomEvent;
use crate::support::provider::Provider;
use crate::support::subscribed::{account, answer, log_in, log_in_for, now, rule, section, subscription, week};
use crate::support::synapse::{Synapse, synapse};

/// After an outage of the homeserver the pauses have grown.
pub(crate) const LATER: Duration = Duration::from_mins(4);

/// One account that is asked every two seconds.
fn plan(provider: &Provider, folder: &Path, more: &str) -> Plan {
    Plan { more: section("2s", &(account("work", provider, folder) + more)), ..Plan::of(&["web"]) }
}

/// How often the bot has said this, edits aside, when everything before is out.
pub(crate) async fn told(house: &House, words: &str) -> usize {
    house.ask("version").await;
    let said = |event: &&RoomEvent| event.sender == house.bot.user_id && event.edits().is_none();
    house.person.events(&house.room).iter().filter(said).filter(|event| event.body().contains(words)).count()
}

/// Waits until asking has failed so often in this process, because of the login.
async fn failures(house: &House, count: u64) {
    const POLLS: &str =
        "pilothouse_usage_polls_total{account=\"work\",source=\"anthropic-oauth\",outcome=\"credential\"} ";
    let seen = async {
        loop {
            let metrics = house.pilothouse.metrics().await;
            let failed = metrics.lines().find_map(|line| line.strip_prefix(POLLS)).and_then(|n| n.parse().ok());
            if failed.unwrap_or(0) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.unwrap_or_else(|_| panic!("asking has not failed {count} times"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_is_told_once_over_a_restart_and_one_that_is_over_with_what_to_do() {
    let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
    provider.says(answer(40.0, week()));
    log_in_for(&folder, Some(47));
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, plan(&provider, &folder, "")).await;
        house.ask("version").await;
        let dying = house.person.expect(SOON, |event| event.body().contains("the login ends in 3 days")).await;
        assert!(
            dying.encrypted && dying.body().contains("work") && dying.body().contains("/login"),
            "{}",
            dying.body()
        );
        provider.until_usage_asked(provider.usage_asked().len() + 2).await;
        house.running.kill().await;
        house.start_again().await;
        provider.until_usage_asked(provider.usage_asked().len() + 3).await;
        assert_eq!(told(&house, "the login ends in 3 days").await, 1);

        provider.expire();
        provider.revoke();
        let over = house.person.expect(SOON, |event| event.body().contains("the login is over")).await;
        assert!(over.encrypted && over.body().contains("cannot be read"), "{}", over.body());
        for part in ["work", "log in again", "/login"] {
            assert!(over.body().contains(part), "{part} is not in {}", over.body());
        }
        failures(&house, 3).await;
        // Why, once: not at each question.
        let logged = house.running.log().iter().filter(|line| line.contains("usage was not read")).count();
        assert_eq!(logged, 1, "{:?}", house.running.log());
        house.running.kill().await;
        house.start_again().await;
        failures(&house, 2).await;
        assert_eq!(told(&house, "the login is over").await, 1);

        // Somebody logs in again: it goes on without a restart.
        let (access, refresh) = provider.log_in();
        let document = crate::support::subscribed::document(None).replace("access-0", &access);
        std::fs::write(folder.join(".credentials.json"), document.replace("refresh-0", &refresh)).expect("written");
        provider.says(answer(52.0, week()));
        house.person.expect(SOON, |event| event.body().contains("week is over 50 %")).await;
        house.running.line("usage is read again", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_cannot_be_read_is_told_once_and_an_unknown_key_is_only_counted() {
    let end = week();
    let (provider, folder) = subscription(40.0, end).await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let mut house = House::build(&namespace, plan(&provider, &folder, "")).await;
        house.ask("usage").await;
        let mut reshaped = answer(41.0, end);
        reshaped["limits"][1]["percent"] = json!({"of": "another shape"});
        reshaped["vivid_moth"] = json!({"utilization": 3.0, "colour": "blue"});
        provider.says(reshaped);
        let told_of = house.person.expect(SOON, |event| event.body().contains("can no longer be read")).await;
        assert!(told_of.encrypted && told_of.body().contains("weekly_all"), "{}", told_of.body());
        provider.until_usage_asked(provider.usage_asked().len() + 3).await;
        let metrics = house.pilothouse.metrics().await;
        let line = "pilothouse_usage_unknown_keys_total{key=\"vivid_moth\"} 1\n";
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        house.running.kill().await;
        house.start_again().await;
        provider.until_usage_asked(provider.usage_asked().len() + 3).await;
        assert_eq!(told(&house, "can no longer be read").await, 1);
        assert_eq!(told(&house, "vivid_moth").await, 0);
        // The rest is still read.
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("5-hour window 12 %"), "{}", shown.body());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_delay_what_can_wait_and_who_is_named_is_mentioned() {
    let end = week();
    let (provider, folder) = subscription(40.0, end).await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let house = House::build(&namespace, plan(&provider, &folder, "")).await;
        house.ask("usage").await;
        // Whole minutes, as people write them.
        let quiet_end = now().as_second() + 150;
        let quiet_end = Timestamp::from_second(quiet_end - quiet_end % 60).expect("a time");
        let clock = |at: Timestamp| at.strftime("%H:%M").to_string();
        let quiet = format!("{}-{}", clock(quiet_end - SignedDuration::from_hours(2)), clock(quiet_end));
        let person = &house.person.user_id;
        let keys = format!("quiet_hours = {quiet:?}\nmention = {{ critical = {person:?} }}\n");
        let changed =
            Plan { more: section("2s", &(keys + account("work", &provider, &folder).as_str())), ..Plan::of(&["web"]) };
        house.pilothouse.write_configuration(&changed.toml(&house.synapse, &house.bot, person, &namespace.name));
        house.running.signal("HUP");
        house.running.line("rules and targets were read again", SOON).await;

        provider.says(answer(60.0, end));
        house.running.line("crossed-50", SOON).await;
        provider.says(answer(96.0, end));
        let urgent = house.person.expect(SOON, |event| event.body().contains("week is over 95 %")).await;
        assert_eq!(urgent.content["m.mentions"]["user_ids"], json!([person]), "{}", urgent.content);
        assert!(urgent.encrypted && now() < quiet_end, "it came in the quiet hours");
        assert_eq!(told(&house, "week is over 50 %").await, 0);
        let waited = house.person.expect(LATER * 2, |event| event.body().contains("week is over 50 %")).await;
        let sent_at = Timestamp::UNIX_EPOCH + Duration::from_secs_f64(waited.sent_at / 1000.0);
        assert!(sent_at >= quiet_end, "{sent_at} is before {quiet_end}");
        assert_eq!(waited.content["m.mentions"]["user_ids"].as_array().map_or(0, Vec::len), 0, "{}", waited.content);
    })
    .await;
}

/// What the front does with what is sent, and the transaction ids that it saw.
#[derive(Default)]
struct Post {
    /// 0: it goes on; 1: it is held; 2: it goes on, and its answer is lost.
    way: AtomicU16,
    seen: Mutex<Vec<String>>,
}

impl Post {
    async fn before(self: &Arc<Self>, synapse: &Synapse) -> Front {
        let post = Arc::clone(self);
        Front::deciding(synapse, move |asked| {
            let Some((_, txn)) = asked.path.split_once("/send/m.room.encrypted/") else { return Way::On };
            post.seen.lock().expect("no panic").push(txn.to_owned());
            match post.way.load(Ordering::SeqCst) {
                1 => Way::Nowhere,
                2 => Way::Lost,
                _ => Way::On,
            }
        })
        .await
    }

    /// Waits until something was sent after the first `count`, and gives its transaction.
    async fn after(&self, count: usize) -> String {
        let sent = async {
            loop {
                if let Some(txn) = self.seen.lock().expect("no panic").get(count) {
                    return txn.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, sent).await.expect("something is sent")
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_told_exactly_once_however_the_daemon_is_killed_while_it_is_sent() {
    let end = week();
    let (provider, folder) = subscription(40.0, end).await;
    let synapse = synapse().await;
    let post = Arc::<Post>::default();
    let front = post.before(&synapse).await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..plan(&provider, &folder, "") };
        let mut house = House::build_on(Arc::clone(&synapse), &namespace, plan).await;
        house.ask("usage").await;
        // Before it reaches the homeserver, and after.
        for (way, percent, words) in [(1, 60.0, "week is over 50 %"), (2, 85.0, "week is over 80 %")] {
            let before = post.count();
            post.way.store(way, Ordering::SeqCst);
            provider.says(answer(percent, end));
            let txn = post.after(before).await;
            if way == 2 {
                house.person.expect(SOON, |event| event.body().contains(words)).await;
            }
            house.running.kill().await;
            post.way.store(0, Ordering::SeqCst);
            let sent = post.count();
            house.start_again().await;
            assert_eq!(post.after(sent).await, txn, "the same event");
            house.person.expect(SOON, |event| event.body().contains(words)).await;
            provider.until_usage_asked(provider.usage_asked().len() + 2).await;
            assert_eq!(told(&house, words).await, 1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_the_homeserver_does_not_take_goes_out_as_its_words() {
    let (provider, folder) = subscription(40.0, week()).await;
    let synapse = synapse().await;
    let status = Arc::new(AtomicU16::new(0));
    let answered = Arc::clone(&status);
    let front = Front::deciding(&synapse, move |asked| {
        let status = answered.load(Ordering::SeqCst);
        if status == 0 || !asked.path.ends_with("/upload") || !asked.path.contains("/media/") {
            return Way::On;
        }
        let code = StatusCode::from_u16(status).expect("a status");
        Way::Answer(code, json!({"errcode": "M_TOO_LARGE", "error": "Upload request body is too large"}))
    })
    .await;
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let plan = Plan { homeserver: Some(front.url().to_owned()), ..plan(&provider, &folder, "") };
        let house = House::build_on(Arc::clone(&synapse), &namespace, plan).await;
        house.ask("usage").await;
        for refused in [413, 500, 0] {
            status.store(refused, Ordering::SeqCst);
            let uploads = front.asked("/upload").len();
            let asked = house.say("usage chart 3d").await;
            let answer = house.person.expect(SOON, |event| event.replies_to() == Some(&asked.id)).await;
            assert!(answer.encrypted && answer.body().contains("40 % used"), "{}", answer.content);
            let kind = if refused == 0 { "m.image" } else { "m.notice" };
            assert_eq!(answer.content["msgtype"], kind, "{refused}: {}", answer.content);
            assert!(front.asked("/upload").len() > uploads, "it was tried");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_take_turns_and_each_is_told_under_its_name() {
    let (work, home) = (Provider::start().await, Provider::start().await);
    let (at_work, at_home) = (Folder::new("pilothouse-login-"), Folder::new("pilothouse-login-"));
    let end = week();
    for (provider, folder) in [(&work, &at_work), (&home, &at_home)] {
        provider.says(answer(40.0, end));
        log_in(folder);
    }
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let accounts = account("work", &work, &at_work) + account("home", &home, &at_home).as_str();
        let house = House::build(&namespace, Plan { more: section("12s", &accounts), ..Plan::of(&["web"]) }).await;
        home.until_usage_asked(1).await;
        let apart = home.usage_asked()[0].at.duration_since(work.usage_asked()[0].at);
        assert!(apart > Duration::from_secs(1), "half an interval lies between, not {apart:?}");
        house.ask("usage").await;
        home.says(answer(96.0, end));
        work.says(answer(52.0, end));
        let told_of = |words: &'static str| move |event: &RoomEvent| event.body().contains(words);
        house.person.expect(SOON, told_of("home: week is over 95 %")).await;
        house.person.expect(SOON, told_of("work: week is over 50 %")).await;
        let shown = house.ask("usage").await;
        let (first, second) = (shown.body().find("work"), shown.body().find("home"));
        assert!(first < second && shown.body().contains("96 %") && shown.body().contains("52 %"), "{}", shown.body());
        assert_eq!(told(&house, "work: week is over 95 %").await, 0);
        let polled = |provider: &Provider| provider.usage_asked()[0].header("authorization").to_owned();
        assert_eq!((polled(&work), polled(&home)), ("Bearer access-0".to_owned(), "Bearer access-0".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_workstation_pushes_is_told_and_stops_the_workload() {
    let folder = Folder::new("pilothouse-push-");
    let token = folder.join("token");
    std::fs::write(&token, "a long random token\n").expect("written");
    let listen = format!("127.0.0.1:{}", free_port());
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let account = format!(
            "listen = {listen:?}\n[[usage.accounts]]\nname = \"desk\"\nsource = \"push\"\npush_token_file = {:?}\n",
            token.display().to_string()
        );
        let more = section("5m", &(account + rule("desk").as_str()));
        let house = House::build(&namespace, Plan { more, ..Plan::of(&["web"]) }).await;
        house.ask("version").await;
        let end = week().as_second();
        let push = async |bearer: &str, percent: f64, ago: i64| -> u16 {
            let limits = json!({ "seven_day": { "used_percentage": percent, "resets_at": end } });
            let body = json!({ "sent_at": now().as_second() - ago, "rate_limits": limits });
            let request = crate::support::http().post(format!("http://{listen}/usage/v1/desk")).bearer_auth(bearer);
            request.json(&body).send().await.expect("an answer").status().as_u16()
        };
        assert_eq!(push("another token", 97.0, 200).await, 401);
        // Told one after the other, as clients tell them.
        assert_eq!(push("a long random token", 40.0, 180).await, 204);
        assert_eq!(push("a long random token", 96.0, 120).await, 204);
        let alert = house.person.expect(SOON, |event| event.body().contains("week is over 95 %")).await;
        assert!(alert.encrypted, "{}", alert.body());
        assert_eq!(namespace.replicas("web").await, 2, "one sample stops nothing");
        assert_eq!(push("a long random token", 97.0, 30).await, 204);
        let stops =
            "Stopping web, and nothing starts it again by itself: desk/weekly_all is told by workstations alone";
        house.person.expect(SOON, |event| event.body().contains(stops)).await;
        namespace.wait_replicas("web", 0, SOON).await;

        let checked = house.beside(&["check"]).run(SOON).await;
        assert!(
            !checked.said.contains("cannot be scaled") && !checked.said.contains("is not known"),
            "{}",
            checked.said
        );
        for line in
            ["acts: stops web from 90 % used of desk/weekly_all on", "no source proves a reset", "✓ desk pushes"]
        {
            assert!(checked.said.contains(line), "{line} is not in\n{}", checked.said);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_stops_while_the_homeserver_is_away_and_the_words_come_later() {
    let end = week();
    let (provider, folder) = subscription(40.0, end).await;
    let synapse = Arc::new(Synapse::start(json!({})).await);
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let plan = plan(&provider, &folder, &rule("work"));
        let house = House::build_on(Arc::clone(&synapse), &namespace, plan).await;
        house.ask("usage").await;
        synapse.stop();
        provider.says(answer(96.0, end));
        namespace.wait_replicas("web", 0, SOON).await;
        synapse.restart().await;
        for words in ["week is over 95 %", "Stopping web until the reset", "is stopped"] {
            house.person.expect(LATER, |event| event.body().contains(words)).await;
        }
        assert_eq!(told(&house, "Stopping web until the reset").await, 1);
        let history = house.ask("history").await;
        assert!(history.body().contains("usage guard: stop web → scaled 2 → 0"), "{}", history.body());
    })
    .await;
}
