//! What is no reset: another account behind the same login, and a client that goes on to push a window that is over. And
//! what a restart must not hide.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::provider::{Provider, Reply};

/// A turn is proven by two samples a minute apart.
const PROVEN: Duration = Duration::from_mins(2);

#[expect(clippy::disallowed_methods, reason = "a test happens now")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn week(percent: f64, resets_at: Timestamp) -> Value {
    json!({ "limits": [{
        "kind": "weekly_all", "group": "weekly", "percent": percent, "severity": "normal",
        "resets_at": resets_at.to_string(), "scope": null, "is_active": true,
    }] })
}

/// An account that is asked, and what else the section says.
fn plan(provider: &Provider, folder: &Path, first: &str, more: &str) -> Plan {
    let until = (now() + SignedDuration::from_hours(8)).as_millisecond();
    let login = json!({ "claudeAiOauth": {
        "accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": until,
        "scopes": ["user:profile"], "subscriptionType": "max",
    } });
    std::fs::write(folder.join(".credentials.json"), login.to_string()).expect("written");
    let more = format!(
        "[usage]\ninterval = \"2s\"\ntimezone = \"UTC\"\n{first}\n\
         [[usage.accounts]]\nname = \"work\"\ndirectory = {:?}\nusage_url = {:?}\ntoken_url = {:?}\n{more}",
        folder.display().to_string(),
        provider.usage_url().as_str(),
        provider.token_url().as_str(),
    );
    Plan { more, ..Plan::of(&["web"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_told_as_one_and_starts_nothing() {
    let provider = Provider::start().await;
    let end = now() + SignedDuration::from_hours(72);
    provider.belongs_to("0b9e1c52-aaaa");
    provider.says(week(40.0, end));
    let folder = tempfile::tempdir().expect("a folder");
    let rule = "[[usage.rules]]\nname = \"spare the week\"\nbucket = \"weekly_all\"\npercent = 90\nstop = [\"web\"]\n\
                mode = \"act\"\n";
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 2).await;
        let house = House::build(&namespace, plan(&provider, folder.path(), "", rule)).await;
        house.ask("usage").await;
        provider.says(week(96.0, end));
        let crossed = house.person.expect(SOON, |event| event.body().contains("week is over 95 %")).await;
        house.person.expect(SOON, |event| event.body().contains("is stopped")).await;

        // Somebody logs in with another account: less is used, the end is the same, and nothing was reset.
        provider.belongs_to("7f3d2a10-bbbb");
        provider.says(week(10.0, end));
        let told = house.person.expect(PROVEN, |event| event.body().contains("belongs to another account now")).await;
        assert!(told.body().contains("no limit was reset"), "{}", told.body());
        let over = |event: &crate::support::person::RoomEvent| event.edits() == Some(&crossed.id);
        let over = house.person.expect(SOON, over).await;
        assert!(over.body().contains("Over, another account is behind it now"), "{}", over.body());
        let left = house.person.expect(SOON, |event| event.body().contains("which is no reset")).await;
        assert!(left.body().contains("will not start") && left.body().contains("start web"), "{}", left.body());

        // What it left stopped is anybody's to start.
        let status = house.ask("status web").await;
        assert!(status.body().contains("stopped"), "{}", status.body());
        house.ask_until("start web", "ready: 2/2").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_over_is_not_pushed_into_the_new_one_and_a_restart_hides_no_age() {
    let provider = Provider::start().await;
    provider.says(week(40.0, now() + SignedDuration::from_hours(72)));
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("push-token");
    std::fs::write(&token, "a long random token\n").expect("written");
    let listen = format!("127.0.0.1:{}", crate::support::free_port());
    let desk = format!(
        "[[usage.accounts]]\nname = \"desk\"\nsource = \"push\"\npush_token_file = {:?}\n",
        token.display().to_string()
    );
    let (past, next) = (now() - SignedDuration::from_mins(5), now() + SignedDuration::from_hours(167));
    // Pushes are told apart by when they were sent: these clocks are some seconds behind.
    let sent = now() - SignedDuration::from_secs(60);
    let push = async |second: i64, percent: f64, resets_at: Timestamp| {
        let body = json!({
            "sent_at": (sent + SignedDuration::from_secs(second)).as_second(),
            "rate_limits": { "seven_day": { "used_percentage": percent, "resets_at": resets_at.as_second() } },
        });
        let client = crate::support::http().post(format!("http://{listen}/usage/v1/desk"));
        let answer = client.bearer_auth("a long random token").json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 204);
    };
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let first = format!("listen = \"{listen}\"");
        let mut house = House::build(&namespace, plan(&provider, folder.path(), &first, &desk)).await;
        house.ask("usage").await;
        // A client that was idle over the reset, before and after one that was not.
        push(0, 96.0, past).await;
        push(10, 51.0, next).await;
        let told = house.person.expect(SOON, |event| event.body().contains("desk: week is over")).await;
        assert!(told.body().contains("over 50 %"), "{}", told.body());
        push(20, 96.0, past).await;
        push(30, 52.0, next).await;
        house.running.line("bucket=desk/weekly_all", SOON).await;
        let has = async |house: &House, wanted: &str| {
            let shown = async {
                while !house.pilothouse.metrics().await.contains(wanted) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            assert!(
                tokio::time::timeout(SOON, shown).await.is_ok(),
                "{wanted} is not in\n{}",
                house.pilothouse.metrics().await
            );
        };
        has(&house, "usage_percent{bucket=\"desk/weekly_all\"} 52").await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("52 %") && !shown.body().contains("96 %"), "{}", shown.body());

        // The provider shuts the door, and a restart asks nobody: what was known is shown all the same.
        provider.on_usage(Reply::too_often(Some("3600")));
        house.running.line("usage was not read", SOON).await;
        let known = now().as_second();
        let before = house.pilothouse.metrics().await;
        assert!(house.running.stop(SOON).await.success());
        house.start_again().await;
        has(&house, "usage_percent{bucket=\"work/weekly_all\"} 40").await;
        let after = house.pilothouse.metrics().await;
        for name in ["usage_last_good_timestamp_seconds{account=\"work\"", "usage_blocked_until_timestamp_seconds{"] {
            let of = |text: &str| text.lines().find(|line| line.contains(name)).map(str::to_owned);
            // What is kept is the time of the answer, a moment after that of the question.
            let second = |text: &str| of(text).and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
            let (was, is) = (second(&before).expect(name), second(&after).expect(name));
            let same = (was - is).abs() <= 1 || (was..=known).contains(&is);
            assert!(was > 0 && same, "{name}: {was}, after the restart {is}");
        }
        has(&house, "usage_last_good_timestamp_seconds{account=\"desk\",source=\"push\"}").await;
    })
    .await;
}
