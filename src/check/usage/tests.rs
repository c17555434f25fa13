use super::*;
use crate::check::Verdict;
use crate::config::Secret;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn account(source: UsageSource) -> Account {
    Account {
        name: "work".to_owned(),
        source,
        secret: None,
        namespace: None,
        secret_key: None,
        token_keys: [].into(),
        mount: None,
        directory: None,
        command: vec!["claude-usage".to_owned()],
        environment: [].into(),
        push_token_file: None,
        usage_url: None,
        token_url: None,
        user_agent: None,
    }
}

fn login() -> Credential {
    Credential {
        access_token: Secret::new("a"),
        refresh_token: Some(Secret::new("r")),
        expires_at: Some(at(3_600)),
        refresh_expires_at: None,
        scopes: vec![SCOPE.to_owned()],
        plan: Some("max".to_owned()),
        client_id: None,
    }
}

#[test]
fn a_login_is_good_only_where_it_can_be_renewed_and_lives_on() {
    const DAY: i64 = 86_400;
    let ends = |left: i64| Credential { refresh_expires_at: Some(at(left)), ..login() };
    for (credential, verdict, words) in [
        (login(), Verdict::Good, "max"),
        (ends(20 * DAY), Verdict::Good, "ends in 20 days"),
        (ends(3 * DAY), Verdict::Warning, "ends in 3 days"),
        (ends(-1), Verdict::Failure, "has ended"),
        (Credential { refresh_token: None, ..login() }, Verdict::Failure, "no refresh token and ends in 1 h"),
        (
            Credential { refresh_token: None, expires_at: Some(at(-1)), ..login() },
            Verdict::Failure,
            "has ended and cannot",
        ),
        (
            Credential { scopes: vec!["user:inference".to_owned()], ..login() },
            Verdict::Failure,
            "no scope user:profile",
        ),
    ] {
        let found = judge("work login".to_owned(), &credential, at(0));
        assert!(found.verdict == verdict && found.detail.contains(words), "{words}: {found:?}");
        assert_eq!(found.remedy.is_some(), verdict != Verdict::Good);
    }
}

#[test]
fn a_source_is_ticked_only_where_it_answered_lately() {
    use UsageSource::{AnthropicOauth, Command, Push};
    let row = |seconds: i64| store::usage::Account {
        good_at: Some(at(-seconds)),
        pushed_at: Some(at(-seconds)),
        ..store::usage::Account::default()
    };
    let failed = store::usage::Account { trouble: Some("it ended with exit code 1".to_owned()), ..row(60) };
    for (source, row, verdict, words) in [
        (AnthropicOauth, row(60), Verdict::Good, "the last one 1 min ago"),
        (Command, row(60), Verdict::Good, "the last one 1 min ago"),
        (Push, row(60), Verdict::Good, "the last one 1 min ago"),
        (AnthropicOauth, row(18_000), Verdict::Warning, "5 h ago: too old"),
        (Command, row(18_000), Verdict::Warning, "5 h ago: too old"),
        (Push, row(18_000), Verdict::Warning, "5 h ago: too old"),
        (AnthropicOauth, failed.clone(), Verdict::Warning, "exit code 1"),
        (Command, failed.clone(), Verdict::Warning, "exit code 1"),
        // The endpoint's trouble is none of the workstations'.
        (Push, failed, Verdict::Good, "1 min ago"),
        (Command, store::usage::Account::default(), Verdict::Skipped, "claude-usage has answered nothing yet"),
        (Push, store::usage::Account::default(), Verdict::Skipped, "none yet"),
    ] {
        let found = told(&account(source), &row, SignedDuration::from_mins(15), at(0));
        assert!(found.verdict == verdict && found.detail.contains(words), "{source:?}: {found:?}");
    }
}
