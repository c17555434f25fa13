//! The shipped manifests, rendered by kubectl and applied to a real API server: they are taken, they are strict, and
//! they allow exactly what the daemon's own list of permissions asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, Client};
use pilothouse::cluster::{PERMISSIONS, SECRET, When};
use pilothouse::config::{Config, Kind, KubernetesSource, Sources};
use serde_json::{Value, json};

use crate::support::control_plane::{Namespace, client_for, with_namespace};
use crate::support::manifests::{Manifests, with_namespaces};

/// What the API server's own caches may take on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// Everything that can be deployed as it stands.
const FOLDERS: [&str; 7] = [
    "base",
    "overlays/restart",
    "overlays/logs",
    "overlays/usage",
    "overlays/push",
    "overlays/prometheus",
    "overlays/tenant",
];

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One right: verb, API group, resource, and the only object that it holds for, or `*`.
type Right = (String, String, String, String);

fn right(verb: &str, group: &str, resource: &str, name: &str) -> Right {
    (verb.to_owned(), group.to_owned(), resource.to_owned(), name.to_owned())
}

/// What the daemon's list asks for on these occasions, for the targets of the shipped configuration.
fn listed(occasions: &[When]) -> BTreeSet<Right> {
    let targets = shipped_configuration(&Manifests::render("base")).targets;
    let mut rights = BTreeSet::new();
    for permission in PERMISSIONS.iter().filter(|permission| occasions.contains(&permission.when)) {
        for target in targets.iter().filter(|target| permission.kind.is_none_or(|kind| kind == target.kind)) {
            let name = if permission.named { target.object.as_str() } else { "*" };
            rights.insert(right(permission.verb, permission.group, permission.resource, name));
        }
    }
    rights
}

/// What the base gives: what is always of use, and Events, which the shipped configuration writes.
const BASE: [When; 2] = [When::Always, When::Events];

/// What every account may do: ask about itself.
fn is_everybodys(rule: &ResourceRule) -> bool {
    let groups = rule.api_groups.as_deref().unwrap_or_default();
    groups.iter().all(|group| group == "authorization.k8s.io" || group == "authentication.k8s.io")
}

/// Asks the API server for all that an account may do in a namespace.
pub(crate) async fn rights_of(client: &Client, namespace: &str) -> BTreeSet<Right> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let api = Api::<SelfSubjectRulesReview>::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await.expect("every account may ask");
    let status: SubjectRulesReviewStatus = answer.status.expect("an answer has a status");
    assert!(!status.incomplete, "the API server knows all rules: {:?}", status.evaluation_error);
    let mut rights = BTreeSet::new();
    for rule in status.resource_rules.iter().filter(|rule| !is_everybodys(rule)) {
        let every = vec!["*".to_owned()];
        let names = rule.resource_names.as_ref().filter(|names| !names.is_empty()).unwrap_or(&every);
        for verb in &rule.verbs {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    for name in names {
                        rights.insert((verb.clone(), group.clone(), resource.clone(), name.clone()));
                    }
                }
            }
        }
    }
    rights
}

/// Applies a folder with the targets in `namespace` and Pilothouse in `own`, and returns a client with the bot's token.
async fn applied(folder: &str, own: &Namespace, namespace: &Namespace) -> Client {
    own.apply(&Manifests::render(folder).moved(&own.name, &namespace.name).built_in().yaml()).await;
    let token = own.service_account_token("pilothouse").await;
    client_for(&own.kubeconfig_for_token(&token)).await
}

/// Waits until the account has exactly these rights in a namespace: the API server learns of a Role a moment later.
async fn has_exactly(client: &Client, namespace: &str, wanted: &BTreeSet<Right>) {
    let start = tokio::time::Instant::now();
    loop {
        let found = rights_of(client, namespace).await;
        if &found == wanted {
            return;
        }
        if start.elapsed() > DEADLINE {
            let missing: Vec<_> = wanted.difference(&found).collect();
            let surplus: Vec<_> = found.difference(wanted).collect();
            panic!("rights in {namespace}: missing {missing:?}, too many {surplus:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_base_allows_what_the_list_asks_for_and_nothing_else() {
    with_namespaces(async |own, targets| {
        let bot = applied("base", own, targets).await;
        has_exactly(&bot, &targets.name, &listed(&BASE)).await;
        has_exactly(&bot, &own.name, &BTreeSet::new()).await;
        has_exactly(&bot, "kube-system", &BTreeSet::new()).await;
    })
    .await;
}

#[tokio::test]
async fn restart_and_logs_add_their_permission_and_nothing_else() {
    with_namespaces(async |own, targets| {
        let bot = applied("overlays/restart", own, targets).await;
        has_exactly(&bot, &targets.name, &listed(&[When::Always, When::Events, When::Restart])).await;
        has_exactly(&bot, &own.name, &BTreeSet::new()).await;
        // The same namespaces, so what `restart` gave is still there.
        let bot = applied("overlays/logs", own, targets).await;
        has_exactly(&bot, &targets.name, &listed(&[When::Always, When::Events, When::Restart, When::ShowLogs])).await;
    })
    .await;
}

#[tokio::test]
async fn usage_adds_the_one_secret_and_nothing_else() {
    with_namespaces(async |own, targets| {
        let bot = applied("overlays/usage", own, targets).await;
        has_exactly(&bot, &targets.name, &listed(&BASE)).await;
        let secret: BTreeSet<Right> =
            SECRET.iter().map(|(verb, _)| right(verb, "", "secrets", "pilothouse-claude")).collect();
        has_exactly(&bot, &own.name, &secret).await;
    })
    .await;
}

/// What workstations push comes in: from the namespaces with the label, through the Service, to where the daemon listens.
#[test]
fn push_opens_the_port_on_which_the_daemon_listens_to_the_labelled_namespaces_alone() {
    let manifests = Manifests::render("overlays/push");
    let pod = &manifests.only("Deployment")["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let named = |list: &Value, name: &str| {
        let mut items = list.as_array().expect("a list").iter();
        items.find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name} in {list}")).clone()
    };
    let environment: BTreeMap<String, _> =
        container["env"].as_array().expect("variables").iter().map(text_of).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pilothouse.toml");
    let toml = "[matrix]\nuser = \"bot\"\npassword = \"x\"\n[policy]\nusers = [\"@alice:example.org\"]\n\
                [[usage.accounts]]\nname = \"work\"\nsource = \"push\"\npush_token_file = \"/run/token\"\n";
    fs::write(&path, toml).expect("a file");
    let loaded = Config::load(&Sources { argument: Some(path), environment, usual: Vec::new() }).expect("it is valid");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let listen = pilothouse::usage::sources::listener(&loaded.config.usage).expect("it listens").listen;
    assert!(listen.ip().is_unspecified(), "{listen}");

    assert_eq!(named(&container["ports"], "push")["containerPort"], listen.port());
    let service = manifests.only("Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "push");
    for (key, value) in service["spec"]["selector"].as_object().expect("a selector") {
        assert_eq!(&pod["metadata"]["labels"][key], value, "the Service finds the pod");
    }
    let policy =
        manifests.of_kind("NetworkPolicy").into_iter().find(|policy| policy["metadata"]["name"] == "pilothouse-push");
    let rule = &policy.expect("a policy")["spec"]["ingress"];
    let from = json!([{"namespaceSelector": {"matchLabels": {"pilothouse-push": "allowed"}}}]);
    assert_eq!(*rule, json!([{"from": from, "ports": [{"protocol": "TCP", "port": listen.port()}]}]));
}

/// A variable of a container, but the file, which the test has elsewhere.
fn text_of(variable: &Value) -> (String, std::ffi::OsString) {
    let text = |key: &str| variable[key].as_str().expect("text").to_owned();
    (text("name"), text("value").into())
}

#[tokio::test]
async fn the_predecessors_role_is_get_and_scale_alone() {
    with_namespace(async |targets| {
        targets.apply(&Manifests::minimal_role(&targets.name)).await;
        let token = targets.service_account_token("minimal").await;
        let bot = client_for(&targets.kubeconfig_for_token(&token)).await;
        let get = right("get", "apps", "deployments", "*");
        let scale = right("patch", "apps", "deployments/scale", "*");
        has_exactly(&bot, &targets.name, &BTreeSet::from([get, scale])).await;
    })
    .await;
}

#[tokio::test]
async fn the_shipped_role_scales_the_named_workload_and_touches_no_other() {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Secret;

    with_namespaces(async |own, targets| {
        targets.deployment("web", "web:1", 0).await;
        targets.deployment("other", "web:1", 0).await;
        let bot = applied("base", own, targets).await;
        has_exactly(&bot, &targets.name, &listed(&BASE)).await;
        let deployments = Api::<Deployment>::namespaced(bot.clone(), &targets.name);
        let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
        let none = PatchParams::default();
        let scale = deployments.patch_scale("web", &none, &two).await.expect("the named workload scales");
        assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
        let by_name = WatchParams::default().fields("metadata.name=web");
        drop(deployments.watch(&by_name, "0").await.expect("a watch by name is allowed"));

        let refused = [
            ("another Deployment's scale", deployments.patch_scale("other", &none, &two).await.err()),
            ("the Deployment itself", deployments.patch("web", &none, &two).await.err()),
            ("another Deployment", deployments.get("other").await.err()),
            ("a list of all Deployments", deployments.list(&ListParams::default()).await.err()),
            (
                "Secrets of the targets",
                Api::<Secret>::namespaced(bot.clone(), &targets.name).list(&ListParams::default()).await.err(),
            ),
            ("its own Secret", Api::<Secret>::namespaced(bot, &own.name).get("pilothouse").await.err()),
        ];
        for (what, error) in refused {
            let forbidden = matches!(&error, Some(kube::Error::Api(status)) if status.is_forbidden());
            assert!(forbidden, "{what} must be forbidden, not {error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_folder_is_taken_by_the_api_server_and_its_pod_by_the_restricted_standard() {
    for folder in FOLDERS {
        with_namespaces(async |own, targets| {
            // The base brings these labels with its namespace; a tenant's is somebody else's.
            let strict = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": own.name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
            });
            own.apply(&strict.to_string()).await;
            let manifests = Manifests::render(folder).moved(&own.name, &targets.name).built_in();
            own.apply(&manifests.yaml()).await;
            let labelled = ListParams::default().labels("app.kubernetes.io/name=pilothouse");
            let pods = Api::<Pod>::namespaced(own.client.clone(), &own.name);
            let start = tokio::time::Instant::now();
            while pods.list(&labelled).await.expect("pods are listed").items.is_empty() {
                assert!(start.elapsed() < DEADLINE, "{folder}: no pod is made\n{}", own.describe().await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// What no API server asks for, but one process a store and its probes need. (What the Pod Security Standard asks for is held
/// above.)
#[test]
fn one_process_on_a_read_only_root_is_probed_and_bounded() {
    for folder in FOLDERS {
        let manifests = Manifests::render(folder);
        let spec = &manifests.only("Deployment")["spec"];
        assert_eq!((&spec["replicas"], &spec["strategy"]), (&json!(1), &json!({"type": "Recreate"})), "{folder}");
        let modes = &manifests.only("PersistentVolumeClaim")["spec"]["accessModes"];
        assert_eq!(*modes, json!(["ReadWriteOncePod"]), "{folder}");
        let container = &spec["template"]["spec"]["containers"][0];
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(*asked, json!({"path": path, "port": "admin"}), "{folder}: {probe}");
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{folder}");
        for bound in ["requests", "limits"] {
            for what in ["cpu", "memory"] {
                assert!(container["resources"][bound][what].is_string(), "{folder}: {bound} of {what}");
            }
        }
    }
}

#[test]
fn the_tag_of_the_manifests_is_the_version_of_the_crate() {
    for folder in FOLDERS {
        let manifests = Manifests::render(folder);
        let container = &manifests.only("Deployment")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], format!("pilothouse:{}", env!("CARGO_PKG_VERSION")), "{folder}");
    }
}

/// Reads the shipped configuration with the example Secret in its place, as the daemon in the pod would.
fn shipped_configuration(manifests: &Manifests) -> Config {
    const MOUNT: &str = "/run/secrets/pilothouse";
    let pod = &manifests.only("Deployment")["spec"]["template"]["spec"];
    let secret: Value = serde_saphyr::from_str(&file("k8s/secret.example.yaml")).expect("YAML");
    let volumes = pod["volumes"].as_array().expect("volumes");
    let mounted = volumes.iter().find(|volume| volume["secret"]["secretName"] == secret["metadata"]["name"]);
    let mode = mounted.expect("the example Secret is mounted")["secret"]["defaultMode"].as_u64().expect("a mode");
    let mode = fs::Permissions::from_mode(u32::try_from(mode).expect("a mode"));
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == MOUNT), "{mounts:?}");

    let folder = tempfile::tempdir().expect("a folder");
    for (key, value) in secret["stringData"].as_object().expect("keys") {
        let path = folder.path().join(key);
        fs::write(&path, value.as_str().expect("text")).expect("a mounted key");
        fs::set_permissions(path, mode.clone()).expect("its mode");
    }
    let toml = manifests.only("ConfigMap")["data"]["pilothouse.toml"].as_str().expect("a file");
    let path = folder.path().join("pilothouse.toml");
    fs::write(&path, toml.replace(MOUNT, &folder.path().display().to_string())).expect("a file");
    let sources = Sources { argument: Some(path), environment: BTreeMap::new(), usual: Vec::new() };
    let loaded = Config::load(&sources).unwrap_or_else(|findings| panic!("the shipped configuration: {findings:?}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    loaded.config
}

#[test]
fn the_shipped_configuration_is_valid_and_fits_the_pod() {
    let manifests = Manifests::render("base");
    let config = shipped_configuration(&manifests);
    let container = &manifests.only("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert!(config.matrix.store.starts_with("/data"), "the store is on the volume");
    assert_eq!(container["ports"][0]["containerPort"], config.admin.listen.port());
    assert!(config.admin.listen.ip().is_unspecified(), "the kubelet asks from outside the pod");
    assert_eq!(config.kubernetes.source, KubernetesSource::InCluster);
    assert!(!config.kubernetes.show_logs, "the base has no permission for logs");
}

#[test]
fn the_role_names_the_targets_of_the_shipped_configuration() {
    let manifests = Manifests::render("base");
    let targets = shipped_configuration(&manifests).targets.into_iter();
    let resource = |kind| match kind {
        Kind::Deployment => "deployments",
        Kind::StatefulSet => "statefulsets",
    };
    let targets: BTreeSet<_> = targets.map(|t| (t.namespace, resource(t.kind).to_owned(), t.object)).collect();
    let mut named = BTreeSet::new();
    for role in manifests.of_kind("Role") {
        let namespace = role["metadata"]["namespace"].as_str().expect("a namespace");
        for rule in role["rules"].as_array().expect("rules") {
            for name in rule["resourceNames"].as_array().into_iter().flatten() {
                let resource = rule["resources"][0].as_str().expect("a resource").trim_end_matches("/scale");
                named.insert((namespace.to_owned(), resource.to_owned(), name.as_str().expect("a name").to_owned()));
            }
        }
    }
    assert_eq!(named, targets);
}

#[test]
fn a_tenant_brings_no_rights_and_uses_what_it_was_given() {
    let manifests = Manifests::render("overlays/tenant");
    for kind in ["Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
        assert_eq!(manifests.of_kind(kind), Vec::<&Value>::new(), "{kind}");
    }
    let pod = &manifests.only("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "chat-operator");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
}

#[test]
fn every_alert_says_what_to_do_and_asks_for_metrics_that_exist() {
    let telemetry = file("src/telemetry.rs");
    let manifests = Manifests::render("overlays/prometheus");
    let rule = manifests.only("PrometheusRule");
    let alerts =
        rule["spec"]["groups"].as_array().expect("groups").iter().filter_map(|group| group["rules"].as_array());
    let mut count = 0;
    for alert in alerts.flatten() {
        count += 1;
        for key in ["summary", "description", "runbook"] {
            assert!(alert["annotations"][key].is_string(), "{} has no {key}", alert["alert"]);
        }
        let expression = alert["expr"].as_str().expect("an expression");
        // Kustomize moves an install into another namespace, but not what an expression or a runbook names.
        let text = alert.to_string();
        assert!(!expression.contains("namespace="), "{expression} holds in one namespace alone");
        assert!(!text.contains("-n pilothouse"), "{} looks into one namespace alone", alert["alert"]);
        let metrics: Vec<&str> = expression
            .split(|c: char| !c.is_ascii_lowercase() && c != '_')
            .filter(|word| word.starts_with("pilothouse_"))
            .collect();
        assert!(!metrics.is_empty(), "{expression} asks for none of Pilothouse's metrics");
        for metric in metrics {
            // They are registered without the prefix, and counters without the suffix, that they are shown with.
            let name = metric.trim_start_matches("pilothouse_").trim_end_matches("_total");
            assert!(telemetry.contains(&format!("\"{name}\",")), "{metric} is no metric of src/telemetry.rs");
        }
    }
    assert!(count >= 5, "{count} alerts");
}
