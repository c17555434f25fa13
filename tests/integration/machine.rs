//! The subscription from the machine: `pilothouse usage` and what belongs to it, as processes, with nobody beside them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::control_plane::with_namespace;
use crate::support::house::{House, Plan, SOON};
use crate::support::leash::Folder;
use crate::support::manifests::Manifests;
use crate::support::process::{Ended, Pilothouse, binary};
use crate::support::provider::{Provider, Reply};
use crate::support::subscribed::{account, answer, document, log_in, now, rule, section, week};

const RUN: Duration = Duration::from_mins(3);

/// A configuration without a room: nothing here needs one.
fn toml(usage: &str) -> String {
    format!(
        "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"@bot:here\"\npassword = \"x\"\n[policy]\nusers = [\"@you:here\"]\n{usage}"
    )
}

async fn run(pilothouse: &Pilothouse, arguments: &[&str]) -> Ended {
    pilothouse.run_with(arguments, RUN).await
}

/// Runs it until the pace allows the question: two of them are a second apart.
async fn until_asked(pilothouse: &Pilothouse, arguments: &[&str]) -> Ended {
    let asked = async {
        loop {
            let ended = run(pilothouse, arguments).await;
            if !ended.said.contains("is not asked again before") {
                return ended;
            }
        }
    };
    tokio::time::timeout(RUN, asked).await.expect("it may be asked at last")
}

fn json_in(said: &str) -> Value {
    let from = said.find(['[', '{']).expect("JSON");
    let to = said.rfind([']', '}']).expect("JSON");
    serde_json::from_str(&said[from..=to]).expect("JSON")
}

#[tokio::test]
async fn the_machine_asks_the_provider_itself_at_the_common_pace_and_its_exit_code_says_how_it_went() {
    let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
    log_in(&folder);
    let (week, watched) = (week(), account("work", &provider, &folder));
    provider.says(answer(40.0, week));
    let pilothouse = Pilothouse::new().configuration(&toml(&section("10m", &watched)));
    let first = run(&pilothouse, &["usage"]).await;
    assert_eq!(first.status.code(), Some(0), "{}", first.said);
    assert!(first.said.contains("week 40 %") && provider.usage_asked().len() == 1, "{}", first.said);

    // Shortly after, nobody is asked: the last numbers, and why.
    provider.says(answer(55.0, week));
    let second = run(&pilothouse, &["usage"]).await;
    assert_eq!((second.status.code(), provider.usage_asked().len()), (Some(1), 1), "{}", second.said);
    assert!(
        second.said.contains("work: was asked shortly ago") && second.said.contains("week 40 %"),
        "{}",
        second.said
    );

    pilothouse.write_configuration(&toml(&section("1s", &watched)));
    let third = until_asked(&pilothouse, &["usage"]).await;
    assert_eq!((third.status.code(), provider.usage_asked().len()), (Some(0), 2), "{}", third.said);
    assert!(third.said.contains("week 55 %"), "{}", third.said);

    provider.says(answer(77.0, week));
    let fourth = until_asked(&pilothouse, &["usage", "--json"]).await;
    let told = json_in(&fourth.said);
    let account = &told["accounts"][0];
    let limits = account["limits"].as_array().expect("limits");
    let full = limits.iter().find(|limit| limit["bucket"] == "work/weekly_all").expect("the week");
    assert_eq!((&account["name"], &full["percent"]), (&json!("work"), &json!(77.0)), "{told}");
    assert_eq!((&account["stale"], &account["used_up"]), (&json!(false), &Value::Null), "{told}");

    // A provider that fails, and one that takes the login no more.
    provider.on_usage(Reply::error(500, "api_error", "Internal server error"));
    let failed = until_asked(&pilothouse, &["usage"]).await;
    assert_eq!(failed.status.code(), Some(1), "{}", failed.said);
    assert!(failed.said.contains("week 77 %") && failed.said.contains("no source gave an answer"), "{}", failed.said);
    provider.expire();
    provider.revoke();
    let over = until_asked(&pilothouse, &["usage"]).await;
    assert!(over.status.code() == Some(1) && over.said.contains("the login is over"), "{}", over.said);

    pilothouse.write_configuration(&toml(""));
    let nobody = run(&pilothouse, &["usage"]).await;
    assert!(nobody.status.code() == Some(1) && nobody.said.contains("no account is watched"), "{}", nobody.said);
}

/// A window of a week that fills by half a point each time, every so many minutes, and the begin of the next one.
fn history() -> Vec<Value> {
    let begin: jiff::Timestamp = "2026-01-05T00:00:00Z".parse().expect("a time");
    let at = |minutes: i64| begin + SignedDuration::from_mins(minutes);
    let week = 7 * 24 * 60;
    let row = |minutes: i64, percent: f64, end: i64| json!({"at": at(minutes).to_string(), "bucket": "old/weekly_all", "percent": percent, "resets_at": at(end).to_string()});
    let first = (1..2_000).map(|step| row(step * 5, f64::from(i32::try_from(step).expect("small")) / 25.0, week));
    let second = (1..20).map(|step| row(week + step * 5, 1.0, 2 * week));
    first.chain(second).collect()
}

#[tokio::test]
async fn history_comes_in_once_teaches_at_once_and_goes_out_as_it_came() {
    let folder = Folder::new("pilothouse-history-");
    let pilothouse = Pilothouse::new().configuration(&toml(""));
    let rows = history();
    let (good, bad) = (folder.join("history.json"), folder.join("bad.csv"));
    fs::write(&good, Value::from(rows.clone()).to_string()).expect("written");
    fs::write(
        &bad,
        "at,bucket,percent,resets_at\n2026-01-05T00:00:00Z,old/weekly_all,10,\nyesterday,old/weekly_all,11,\n",
    )
    .expect("written");
    let faulty = run(&pilothouse, &["usage", "import", &bad.display().to_string()]).await;
    assert_eq!(faulty.status.code(), Some(1), "{}", faulty.said);
    assert!(faulty.said.contains("bad.csv") && faulty.said.contains("line 3"), "{}", faulty.said);
    let missing = run(&pilothouse, &["usage", "import", "/nowhere.csv"]).await;
    assert!(
        missing.status.code() == Some(1) && missing.said.contains("/nowhere.csv cannot be read"),
        "{}",
        missing.said
    );
    let nothing = run(&pilothouse, &["usage", "export", "--json"]).await;
    assert_eq!(json_in(&nothing.said), json!([]), "of a faulty file nothing is taken");

    for new in [rows.len(), 0] {
        let imported = run(&pilothouse, &["usage", "import", &good.display().to_string()]).await;
        let line = format!("{} rows read, {new} of them new; 1 closed windows to learn from.", rows.len());
        assert!(imported.status.success() && imported.said.contains(&line), "{}", imported.said);
    }
    let store = pilothouse::store::Store::open(&pilothouse.database());
    let weeks = pilothouse::usage::overview::weeks(&store.expect("opened")).await.expect("read");
    assert!(weeks.len() == 1 && weeks[0].tells_rate(), "what forecasts learn from: {weeks:?}");

    let exported = json_in(&run(&pilothouse, &["usage", "export", "--json"]).await.said);
    let key =
        |row: &Value| (row["at"].to_string(), row["bucket"].to_string(), row["percent"].as_f64().map(f64::to_bits));
    let keys = |rows: &Value| rows.as_array().expect("rows").iter().map(key).collect::<Vec<_>>();
    assert_eq!(keys(&exported), keys(&Value::from(rows)));

    // What is not read to its end is no fault: more than a pipe holds, and a reader that leaves.
    for arguments in ["usage export", "usage export --json"] {
        let script = format!("{{ '{}' {arguments}; echo $? > code; }} | head -n 1 > /dev/null", binary().display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).current_dir(&*folder).env_clear().env("PATH", "/usr/bin:/bin");
        shell.env("PILOTHOUSE_CONFIG", pilothouse.store.path().join("pilothouse.toml"));
        shell.env("PILOTHOUSE__MATRIX__STORE", pilothouse.store.path().join("store"));
        let said = shell.output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{arguments}");
        assert_eq!(fs::read_to_string(folder.join("code")).expect("a code").trim(), "0", "{arguments}");
    }
}

#[tokio::test]
async fn forecasts_are_held_against_simulated_and_recorded_weeks() {
    let folder = Folder::new("pilothouse-history-");
    let pilothouse = Pilothouse::new();
    let simulated = run(&pilothouse, &["usage", "backtest", "--seeds", "1..5"]).await;
    assert!(simulated.status.success() && simulated.said.contains("ols6h"), "{}", simulated.said);
    let again = run(&pilothouse, &["usage", "backtest", "--seeds", "1..5"]).await;
    assert_eq!(simulated.said, again.said, "the same seeds give the same table");
    let report = json_in(&run(&pilothouse, &["usage", "backtest", "--seeds", "1..5", "--json"]).await.said);
    assert!(report.to_string().contains("ols6h"), "{report}");

    let mut csv = String::from("at,bucket,percent,resets_at\n");
    for row in history() {
        let text = |key: &str| row[key].as_str().expect("text").to_owned();
        let _ = writeln!(csv, "{},{},{},{}", text("at"), text("bucket"), row["percent"], text("resets_at"));
    }
    let file = folder.join("history.csv");
    fs::write(&file, csv).expect("written");
    let recorded = run(&pilothouse, &["usage", "backtest", "--csv", &file.display().to_string()]).await;
    assert!(recorded.status.success() && recorded.said.contains("ols6h"), "{}", recorded.said);
    let missing = run(&pilothouse, &["usage", "backtest", "--csv", "/nowhere.csv"]).await;
    assert!(missing.status.code() == Some(1) && missing.said.contains("/nowhere.csv"), "{}", missing.said);
}

/// Puts the script of the README into a folder, beside a `claude` of the test's, and gives the account that runs it.
fn program(folder: &Path, claude: &str) -> String {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```sh\n").filter_map(|block| block.split("```").next());
    let script = blocks.find(|block| block.contains("get_usage")).expect("the script");
    for (name, text) in [("claude-usage", script), ("claude", claude)] {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    format!(
        "[[usage.accounts]]\nname = \"work\"\nsource = \"command\"\ncommand = [{:?}]\nenvironment = {{ PATH = \"{}:/usr/bin:/bin\" }}\n",
        folder.join("claude-usage").display().to_string(),
        folder.display(),
    )
}

/// A CLI that takes what the real one takes, and answers as it does.
fn claude(limits: &Value) -> String {
    let response = json!({"subtype": "success", "request_id": "1", "response": {
        "subscription_type": "max", "rate_limits_available": true, "rate_limits": limits,
    }});
    let lines =
        [json!({"type": "system", "subtype": "init"}), json!({"type": "control_response", "response": response})];
    format!(
        "#!/bin/sh\n[ \"$*\" = '--print --verbose --input-format stream-json --output-format stream-json' ] || exit 3\n\
         read -r request; case $request in *'\"subtype\":\"get_usage\"'*) ;; *) exit 4;; esac\n\
         cat <<'END'\n{}\n{}\nEND\n",
        lines[0], lines[1]
    )
}

#[tokio::test]
async fn the_readmes_script_reads_the_cli_and_a_program_that_fails_is_not_ticked() {
    let good = Folder::new("pilothouse-program-");
    let usage = section("5m", &program(&good, &claude(&answer(63.0, week()))));
    let pilothouse = Pilothouse::new().configuration(&toml(&usage));
    let asked = run(&pilothouse, &["usage"]).await;
    assert!(asked.status.success() && asked.said.contains("week 63 %"), "{}", asked.said);
    let checked = run(&pilothouse, &["check"]).await;
    assert!(checked.said.contains("✓ work program") && checked.said.contains("the last one"), "{}", checked.said);

    let bad = Folder::new("pilothouse-program-");
    let provider = Provider::start().await;
    log_in(&bad);
    provider.says(answer(40.0, week()));
    // Beside the endpoint, under the same name: what fails is told, and the numbers are the other's.
    let both = program(&bad, "#!/bin/sh\necho secret >&2; exit 1\n") + account("work", &provider, &bad).as_str();
    let pilothouse = Pilothouse::new().configuration(&toml(&section("5m", &both)));
    let asked = run(&pilothouse, &["usage"]).await;
    assert!(asked.status.success() && asked.said.contains("week 40 %"), "{}", asked.said);
    assert!(asked.said.contains("The last question failed") && !asked.said.contains("secret"), "{}", asked.said);
    let checked = run(&pilothouse, &["check"]).await;
    assert!(checked.said.contains("! work program") && checked.said.contains("✓ work answers"), "{}", checked.said);
    assert!(!checked.said.contains("✓ work program") && !checked.said.contains("secret"), "{}", checked.said);
}

#[tokio::test]
async fn check_says_what_a_rule_and_a_login_lack() {
    let folder = Folder::new("pilothouse-login-");
    let login = document(None).replace("refreshToken\"", "formerly\"");
    fs::write(folder.join(".credentials.json"), login).expect("written");
    with_namespace(async |namespace| {
        namespace.apply(&Manifests::minimal_role(&namespace.name)).await;
        let token = namespace.service_account_token("minimal").await;
        let kubeconfig = namespace.kubeconfig_for_token(&token);
        let provider = Provider::start().await;
        let usage = format!(
            "[[targets]]\nname = \"web\"\nnamespace = \"kube-system\"\n[[targets]]\nname = \"shop\"\nnamespace = {:?}\n{}{}",
            namespace.name,
            section("5m", &account("work", &provider, &folder)),
            rule("work").replace("[\"web\"]", "[\"web\", \"shop\"]")
        );
        let pilothouse = Pilothouse::new().configuration(&toml(&usage)).kubeconfig(&kubeconfig);
        let checked = run(&pilothouse, &["check"]).await;
        for line in [
            "✗ work login",
            "cannot be renewed: it has no refresh token",
            "– rule spare the week",
            "✗ rule spare the week",
            "web cannot be scaled: the permission is missing",
            "! rule spare the week",
            "no room is known for what it says",
        ] {
            assert!(checked.said.contains(line), "{line} is not in\n{}", checked.said);
        }
        assert!(!checked.said.contains("shop cannot be scaled"), "{}", checked.said);
        assert!(!pilothouse.store.path().join("store").exists(), "check makes no store");
        assert_eq!(provider.usage_asked().len() + provider.token_asked().len(), 0, "nor does it ask the provider");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_now_asks_and_answers_with_what_came() {
    let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
    provider.says(answer(40.0, week()));
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 0).await;
        // Without a login nobody is asked, and the next look is ten minutes off.
        let plan = Plan { more: section("10m", &account("work", &provider, &folder)), ..Plan::of(&["web"]) };
        let house = House::build(&namespace, plan).await;
        house.running.line("usage was not read", SOON).await;
        let shown = house.ask("usage").await;
        assert!(shown.body().contains("no usable login") && provider.usage_asked().is_empty(), "{}", shown.body());
        log_in(&folder);
        let begun = now();
        let fresh = house.ask("usage now").await;
        assert!(fresh.body().contains("week 40 %"), "{}", fresh.body());
        let age = now().duration_since(begun);
        assert!(fresh.body().contains(" s ago.") && age < SignedDuration::from_secs(60), "{}", fresh.body());
        assert_eq!(provider.usage_asked().len(), 1);
        let again = house.ask("usage now").await;
        assert!(again.body().contains("may not be asked before"), "{}", again.body());
        assert_eq!(provider.usage_asked().len(), 1);
    })
    .await;
}
