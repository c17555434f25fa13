//! The first configuration: asked, by flags, out of an environment; and the daemon that runs on it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::support::control_plane::{Namespace, client_for, with_namespace};
use crate::support::front::{Front, Way};
use crate::support::house::SOON;
use crate::support::leash::Folder;
use crate::support::manifests::Manifests;
use crate::support::person::Person;
use crate::support::process::{Pilothouse, binary};
use crate::support::synapse::{Account, Synapse, synapse};

const RUN: Duration = Duration::from_mins(3);

/// What a run of `init` came to.
struct Told {
    code: Option<i32>,
    said: String,
    printed: String,
}

/// `init` in this folder with this environment alone.
fn command(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    // Whoever started the tests in the background may have had them ignore interrupts, and children inherit that.
    let mut command = Command::new("/usr/bin/env");
    command
        .arg("--default-signal=INT")
        .arg(binary())
        .arg("init")
        .args(arguments)
        .env_clear()
        .env("HOME", folder)
        .envs(variables.iter().copied());
    command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn init(folder: &Path, variables: &[(&str, &str)], arguments: &[&str], answers: &str) -> Told {
    let mut child = command(folder, variables, arguments).spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("standard input is piped");
    // Who needs no answer may have ended before they are written.
    let _ = input.write_all(answers.as_bytes()).await;
    drop(input);
    let output = tokio::time::timeout(RUN, child.wait_with_output()).await.expect("it ends").expect("it is waited for");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Told { code: output.status.code(), said: text(output.stderr), printed: text(output.stdout) }
}

/// Answers to all that is asked for a cluster, but for the usage source; the password is in the file `given`.
fn for_the_cluster<'a>(synapse: &'a Synapse, bot: &'a Account, person: &'a Person, target: &'a str) -> [&'a str; 11] {
    let (url, user, allow) = (synapse.url(), bot.user_id.as_str(), person.user_id.as_str());
    [
        "--place=cluster",
        "--homeserver",
        url,
        "--user",
        user,
        "--password-file",
        "given",
        "--allow",
        allow,
        "--target",
        target,
    ]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// A bot, and a person whose identity `check` finds.
async fn accounts(synapse: &std::sync::Arc<Synapse>) -> (Account, Person) {
    let (bot, account) = (synapse.register("pilothouse").await, synapse.register("alice").await);
    (bot, Person::with_identity(synapse, &account).await)
}

/// A Claude installation that is logged in.
fn claude(folder: &Path, refresh: &str) {
    fs::create_dir_all(folder).expect("a folder");
    let login = json!({
        "claudeAiOauth": {"accessToken": "sk-ant-oat01-a", "refreshToken": refresh, "scopes": ["user:profile"]},
        "mcpOAuth": {"elsewhere": "another secret"},
    });
    fs::write(folder.join(".credentials.json"), login.to_string()).expect("a login");
}

fn kubeconfig(namespace: &Namespace) -> String {
    namespace.cluster.kubeconfig().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn piped_answers_wrong_ones_first_make_what_the_daemon_runs_on() {
    with_namespace(async |namespace| {
        let _kubelet = namespace.kubelet();
        namespace.deployment("web", "fine", 0).await;
        let (folder, synapse) = (Folder::new("pilothouse-init-"), synapse().await);
        let (bot, person) = accounts(&synapse).await;
        let answers = format!(
            "there\nhere\nmatrix\n{}\na b\n{}\n\n{}\nalice\n{}\nweb\n{}/web\nsomehow\npush\nnone\n",
            synapse.url(),
            bot.user_id,
            bot.password,
            person.user_id,
            namespace.name
        );
        let told = init(&folder, &[("KUBECONFIG", &kubeconfig(&namespace))], &[], &answers).await;
        assert_eq!(told.code, Some(0), "{}", told.said);
        assert_eq!(told.said.matches("  ✗ ").count(), 7, "{}", told.said);
        for good in ["✓ homeserver", "✓ login", "✓ API server", "✓ web", "It works"] {
            assert!(told.said.contains(good), "{good} in {}", told.said);
        }
        assert!(!told.said.contains(&bot.password) && told.printed.is_empty(), "{}", told.said);
        let file = folder.join("pilothouse.toml");
        assert_eq!((mode(&file), mode(&folder.join("pilothouse.password"))), (0o644, 0o600));
        assert_eq!(mode(&folder.join("pilothouse.push-token-default")), 0o600);

        let pilothouse = Pilothouse::new()
            .without("PILOTHOUSE__MATRIX__STORE")
            .variable("PILOTHOUSE_CONFIG", file.display().to_string())
            .kubeconfig(&namespace.cluster.kubeconfig());
        let mut running = pilothouse.start();
        running.ready(SOON).await;
        assert!(folder.join("pilothouse-store/session.json").is_file());
        let room = person.create_room(&[&bot.user_id]).await;
        person.member(&room, &bot.user_id, "join", SOON).await;
        let sent = person.send(&room, "start 2").await;
        let answer = person.expect_reply(&sent, SOON).await;
        person.expect_text(&answer, "ready: 2/2", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_predecessors_environment_or_flags_alone_are_enough_and_nothing_is_overwritten() {
    with_namespace(async |namespace| {
        namespace.deployment("clawdbot", "fine", 1).await;
        let (folder, synapse) = (Folder::new("pilothouse-init-"), synapse().await);
        let (bot, person) = accounts(&synapse).await;
        let (kubeconfig, url) = (kubeconfig(&namespace), synapse.url());
        let variables = [
            ("KUBECONFIG", kubeconfig.as_str()),
            ("MATRIX_HOMESERVER", url),
            ("MATRIX_USER", &bot.user_id),
            ("MATRIX_PASSWORD", &bot.password),
            ("ALLOWED_USERS", &person.user_id),
            ("DEPLOYMENT_NAME", "clawdbot"),
            ("DEPLOYMENT_NAMESPACE", &namespace.name),
            ("CRYPTO_STORE_PATH", "store"),
        ];
        let told = init(&folder, &variables, &[], "").await;
        assert_eq!(told.code, Some(0), "{}", told.said);
        assert!(told.said.contains("✓ clawdbot") && told.said.contains("unset ALLOWED_USERS"), "{}", told.said);
        assert!(!told.said.contains(&bot.password), "{}", told.said);
        let file = folder.join("pilothouse.toml");
        let first = fs::read_to_string(&file).expect("a configuration");
        assert!(first.contains("bare_words_everywhere = true") && !first.contains(&bot.password), "{first}");

        let given = folder.join("given");
        fs::write(&given, &bot.password).expect("a password");
        let target = format!("bot={}/clawdbot:deployment", namespace.name);
        let password = given.display().to_string();
        let flags = [
            "--place=here",
            "--homeserver",
            url,
            "--user",
            &bot.user_id,
            "--password-file",
            &password,
            "--allow",
            &person.user_id,
            "--target",
            &target,
            "--usage=none",
        ];
        let kubeconfig = [("KUBECONFIG", kubeconfig.as_str())];
        let told = init(&folder, &kubeconfig, &flags, "y\n").await;
        assert_eq!(told.code, Some(2), "{}", told.said);
        assert!(told.said.contains("stays as it is"), "{}", told.said);
        assert_eq!(fs::read_to_string(&file).expect("a configuration"), first);
        let told = init(&folder, &kubeconfig, &[&flags[..], &["--overwrite"]].concat(), "").await;
        assert_eq!(told.code, Some(0), "{}", told.said);
        assert!(told.said.contains("✓ bot") && !told.said.contains("homeserver, base URL"), "{}", told.said);
        assert_ne!(fs::read_to_string(&file).expect("a configuration"), first);
        // What the check does not like is told in the exit code, too; without a check nobody is asked.
        let wrong = [&flags[..], &["--overwrite", "--target", "apps/nowhere"]].concat();
        assert_eq!(init(&folder, &kubeconfig, &wrong, "").await.code, Some(1));
        let told = init(&folder, &[], &[&wrong[..], &["--no-check"]].concat(), "").await;
        assert!(told.code == Some(0) && !told.said.contains("Checking"), "{}", told.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secrets_for_the_cluster_are_taken_by_the_api_server() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (folder, synapse) = (Folder::new("pilothouse-init-"), synapse().await);
        let (bot, person) = accounts(&synapse).await;
        fs::write(folder.join("given"), &bot.password).expect("a password");
        // Two installations side by side: the one that is named counts.
        let (work, private) = (folder.join("claude-work"), folder.join(".claude"));
        claude(&work, "sk-ant-ort01-work");
        claude(&private, "sk-ant-ort01-private");
        let before = fs::read(work.join(".credentials.json")).expect("a login");
        let (kubeconfig, claude) = (kubeconfig(&namespace), work.display().to_string());
        let variables = [("KUBECONFIG", kubeconfig.as_str()), ("CLAUDE_CONFIG_DIR", &claude)];
        let (target, usage) =
            (format!("{}/web", namespace.name), format!("work:secret={}/claude-work", namespace.name));
        let common = for_the_cluster(&synapse, &bot, &person, &target);
        let flags = [&common[..], &["--usage", &usage, "--namespace", &namespace.name]].concat();
        let told = init(&folder, &variables, &flags, "y\n").await;
        assert_eq!(told.code, Some(0), "{}", told.said);
        assert!(told.said.contains("logs the other out") && told.said.contains("✓ web"), "{}", told.said);
        assert!(!told.said.contains("sk-ant") && !told.said.contains(&bot.password), "{}", told.said);
        namespace.apply(&told.printed).await;
        let secrets = namespace.api::<Secret>();
        let data = |secret: Secret, key: &str| {
            String::from_utf8(secret.data.expect("data").remove(key).expect("the key").0).expect("UTF-8")
        };
        assert_eq!(data(secrets.get("pilothouse").await.expect("the Secret"), "password"), bot.password);
        let login = data(secrets.get("claude-work").await.expect("the Secret"), "credentials.json");
        let login: Value = serde_json::from_str(&login).expect("JSON");
        assert_eq!(login["claudeAiOauth"]["refreshToken"], "sk-ant-ort01-work");
        assert!(login.get("mcpOAuth").is_none());
        assert_eq!(fs::read(work.join(".credentials.json")).expect("a login"), before);
        what_it_says_gives_the_right_to_the_login(&told.said, &folder, &namespace).await;

        // Into a file, and without the login: then how to make one.
        let more = [&flags[..], &["--overwrite", "--secret-manifest", "secret.yaml", "--login=own", "--no-check"]];
        let told = init(&folder, &variables, &more.concat(), "").await;
        assert!(told.code == Some(0) && told.printed.is_empty(), "{}{}", told.said, told.printed);
        assert!(
            told.said.contains("CLAUDE_CONFIG_DIR=") && told.said.contains("kubectl create secret"),
            "{}",
            told.said
        );
        assert_eq!(mode(&folder.join("secret.yaml")), 0o600);
        let manifest = fs::read_to_string(folder.join("secret.yaml")).expect("a manifest");
        assert!(!manifest.contains("claude-work"), "{manifest}");
        namespace.apply(&manifest).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_lie_on_the_volume_of_the_pod_is_not_looked_for_on_this_machine() {
    with_namespace(async |namespace| {
        namespace.deployment("web", "fine", 1).await;
        let (folder, synapse) = (Folder::new("pilothouse-init-"), synapse().await);
        let (bot, person) = accounts(&synapse).await;
        fs::write(folder.join("given"), &bot.password).expect("a password");
        let (kubeconfig, target) = (kubeconfig(&namespace), format!("{}/web", namespace.name));
        let common = for_the_cluster(&synapse, &bot, &person, &target);
        let flags = [&common[..], &["--usage=none", "--overwrite"]].concat();
        // This machine has no such volume, and not even root can make it; or it has one, of something else.
        let other = folder.join("data/crypto_store");
        fs::create_dir_all(&other).expect("a folder");
        for name in ["session.json", pilothouse::daemon::DATABASE] {
            fs::write(other.join(name), "something else").expect("a file");
        }
        for store in ["/proc/data/crypto_store", &other.display().to_string()] {
            let flags = [&flags[..], &["--store", store]].concat();
            let told = init(&folder, &[("KUBECONFIG", &kubeconfig)], &flags, "").await;
            assert_eq!(told.code, Some(0), "{}", told.said);
            assert!(told.said.contains("looked at where it will run") && told.said.contains("✓ web"), "{}", told.said);
            assert!(told.said.contains("logged in for this check alone"), "{}", told.said);
            assert!(!told.said.contains("data/crypto_store"), "nothing is said of it: {}", told.said);
            let file = fs::read_to_string(folder.join("pilothouse.toml")).expect("a configuration");
            assert!(file.contains(&format!("store = {store:?}")), "{file}");
        }
    })
    .await;
}

/// Does what the last words say: the overlay, the configuration in its place, `kubectl apply`; and asks the API server.
async fn what_it_says_gives_the_right_to_the_login(said: &str, folder: &Path, namespace: &Namespace) {
    let role = format!("Role pilothouse-usage: get, patch secrets/claude-work in {}", namespace.name);
    assert!(said.contains(&role) && said.contains("kubectl apply -k k8s/overlays/own"), "{said}");
    let from = said.find("apiVersion: kustomize").expect("a kustomization");
    let to = said[from..].find("\nThen:").expect("what follows");
    let k8s = folder.join("k8s");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s");
    let copied = std::process::Command::new("cp").arg("-r").arg(shipped).arg(&k8s).status().expect("cp starts");
    assert!(copied.success());
    fs::create_dir(k8s.join("overlays/own")).expect("a folder");
    fs::write(k8s.join("overlays/own/kustomization.yaml"), &said[from..from + to]).expect("written");
    fs::copy(folder.join("pilothouse.toml"), k8s.join("base/pilothouse.toml")).expect("copied");
    let own = Manifests::render(&k8s.join("overlays/own").display().to_string());
    namespace.apply(&own.moved(&namespace.name, &namespace.name).built_in().yaml()).await;
    let token = namespace.service_account_token("pilothouse").await;
    let bot = client_for(&namespace.kubeconfig_for_token(&token)).await;
    let secrets = kube::Api::<Secret>::namespaced(bot, &namespace.name);
    let seen = async {
        // The API server learns of a Role a moment later.
        while let Err(error) = secrets.get("claude-work").await {
            assert!(matches!(&error, kube::Error::Api(status) if status.is_forbidden()), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the login may be read");
    assert!(secrets.get("pilothouse").await.is_err(), "and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_or_an_end_of_the_answers_leaves_nothing_behind() {
    let folder = Folder::new("pilothouse-init-");
    let told = init(&folder, &[], &[], "here\nhttps://matrix.example.org\npilothouse\n").await;
    assert_eq!(told.code, Some(2), "{}", told.said);
    let missing = told.said.split("Missing:").nth(1).expect("what is missing");
    assert!(missing.contains("--password-file") && !missing.contains("--homeserver"), "{missing}");

    let mut child = command(&folder, &[], &["--place=here"]).spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("standard input is piped");
    input.write_all(b"https://matrix.example.org\npilothouse\nsecret\n").await.expect("answers");
    let mut said = BufReader::new(child.stderr.take().expect("standard error is piped")).lines();
    let asked =
        async { while !said.next_line().await.expect("lines").expect("it goes on").starts_with("Its password") {} };
    tokio::time::timeout(RUN, asked).await.expect("it asks");
    let pid = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().expect("kill").success());
    let status = tokio::time::timeout(RUN, child.wait()).await.expect("it ends").expect("it is waited for");
    assert!(!status.success());
    assert_eq!(fs::read_dir(&*folder).expect("a folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_of_its_check_is_no_success_and_leaves_no_login_behind() {
    let synapse = synapse().await;
    let (bot, person) = accounts(&synapse).await;
    let front = Front::deciding(&synapse, |_| Way::On).await;
    let folder = Folder::new("pilothouse-init-");
    fs::write(folder.join("given"), &bot.password).expect("written");
    let mut arguments = for_the_cluster(&synapse, &bot, &person, "apps/web");
    arguments[2] = front.url();
    front.cut(Method::GET, "/joined_rooms", Way::Nowhere);
    let mut child = command(&folder, &[], &arguments).spawn().expect("the binary starts");
    drop(child.stdin.take());
    front.until_cut(1).await;
    let pid = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &pid]).status().expect("kill").success());
    let output = tokio::time::timeout(RUN, child.wait_with_output()).await.expect("it ends").expect("it is waited for");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("no login of this check stays behind"), "{said}");
    assert!(said.contains("What was written stays"), "{said}");
}
