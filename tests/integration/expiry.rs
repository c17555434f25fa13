//! The end of a subscription's login, which no renewal moves: told in steps, while it comes nearer.

use jiff::SignedDuration;

use crate::alerts::{LATER, told};
use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::provider::Provider;
use crate::support::subscribed::{account, answer, document_until, log_in, now, section, week};

/// So long the first steps hold before the next ones are due.
const BETWEEN: SignedDuration = SignedDuration::from_secs(45);
const DAY: SignedDuration = SignedDuration::from_hours(24);

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_login_is_told_at_seven_three_and_one_days_once_each_over_restarts() {
    let (work, home) = (Provider::start().await, Provider::start().await);
    let (at_work, at_home) = (Folder::new("pilothouse-login-"), Folder::new("pilothouse-login-"));
    for (provider, folder) in [(&work, &at_work), (&home, &at_home)] {
        provider.says(answer(40.0, week()));
        log_in(folder);
    }
    let polled = async |more: usize| {
        work.until_usage_asked(work.usage_asked().len() + more).await;
        home.until_usage_asked(home.usage_asked().len() + more).await;
    };
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        let accounts = account("work", &work, &at_work) + account("home", &home, &at_home).as_str();
        let mut house = House::build(&namespace, Plan { more: section("2s", &accounts), ..Plan::of(&["web"]) }).await;
        // From now on a room is known; then each login is given an end that comes near while somebody watches.
        house.ask("version").await;
        let next = now() + BETWEEN;
        for (folder, end) in [(&at_work, next + DAY * 3), (&at_home, next + DAY)] {
            let new = folder.join("new");
            std::fs::write(&new, document_until(Some(end))).expect("written");
            std::fs::rename(new, folder.join(".credentials.json")).expect("in its place");
        }
        let steps = [
            ["work: the login ends in 7 days.", "home: the login ends in 3 days."],
            ["work: the login ends in 3 days.", "home: the login ends in 1 day."],
        ];
        for step in steps {
            for words in step {
                house.person.expect(LATER, |event| event.body().contains(words)).await;
            }
            polled(2).await;
            house.running.kill().await;
            house.start_again().await;
        }
        assert!(now() > next);
        polled(3).await;
        for words in steps.as_flattened() {
            assert_eq!(told(&house, words).await, 1, "{words}");
        }
        assert_eq!(told(&house, "the login ends").await, 4, "and nothing between");
        let last = house.person.expect(SOON, |event| event.body().contains("ends in 1 day.")).await;
        assert!(last.encrypted && last.body().contains("/login"), "{}", last.body());
    })
    .await;
}
