//! The way in for what workstations push, as it is shipped: past the policy, by the Service to the pod's port, and there to
//! the daemon with the configuration of that pod.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::control_plane::Namespace;
use crate::support::house::SOON;
use crate::support::leash::Folder;
use crate::support::manifests::{Manifests, with_namespaces};
use crate::support::process::Pilothouse;
use crate::support::subscribed::{now, week};
use crate::support::{free_port, http};

/// Where the Secret is mounted, and its key for the workstations of the account `work`, as `k8s/README.md` says.
const SECRETS: &str = "/run/secrets/pilothouse";
const KEY: &str = "push-work";
/// Where the configuration is mounted.
const CONFIGURATION: &str = "/etc/pilothouse";
/// An address of the kind that documents use: nobody is asked there.
const ADDRESS: &str = "192.0.2.7";

/// Port and labels of the pod that stands behind a Service, as the API server's controllers find it.
async fn behind(own: &Namespace, service: &str) -> (i32, Value) {
    let (pods, slices) = (own.api::<Pod>(), own.api::<EndpointSlice>());
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let found = async {
        loop {
            // What a kubelet would say of the pod.
            for pod in pods.list(&ListParams::default()).await.expect("pods are listed") {
                let name = pod.metadata.name.expect("a name");
                let status = json!({"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}});
                // It may be gone by now.
                let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
            }
            for slice in slices.list(&of_service).await.expect("slices are listed") {
                let there = slice.endpoints.iter().any(|endpoint| endpoint.addresses == [ADDRESS]);
                if let [port] = slice.ports.as_deref().unwrap_or_default()
                    && there
                {
                    return port.port.expect("a number");
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let port = tokio::time::timeout(SOON, found).await;
    let Ok(port) = port else { panic!("nothing is behind {service}\n{}", own.describe().await) };
    let pod = pods.list(&ListParams::default()).await.expect("pods are listed").items.pop().expect("a pod");
    (port, json!(pod.metadata.labels))
}

/// From where policies let this port of a pod with these labels be reached.
fn let_in(manifests: &Manifests, labels: &Value, port: i32) -> Vec<Value> {
    let mut from = Vec::new();
    for policy in manifests.of_kind("NetworkPolicy") {
        let spec = &policy["spec"];
        let selector = spec["podSelector"]["matchLabels"].as_object().expect("a selector");
        if selector.iter().all(|(key, value)| labels[key] == *value) {
            for rule in spec["ingress"].as_array().into_iter().flatten() {
                let mut ports = rule["ports"].as_array().expect("ports").iter();
                from.extend(ports.any(|open| open["port"] == port).then(|| rule["from"].clone()));
            }
        }
    }
    from
}

/// The daemon as the manifests deploy it. What is mounted lies in a folder, and the port is moved: on this machine it may be
/// another's. There is no ServiceAccount here, so its token comes in a kubeconfig.
async fn deployed(manifests: &Manifests, own: &Namespace, mounted: &Folder, (port, free): (i32, u16)) -> Pilothouse {
    let moved = |text: &str| {
        let folder = |name: &str| mounted.join(name).display().to_string();
        let text = text.replace(SECRETS, &folder("secrets")).replace(CONFIGURATION, &folder("configuration"));
        text.replace(&format!(":{port}"), &format!(":{free}"))
    };
    let pod = &manifests.only("Deployment")["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mode =
        pod["volumes"].as_array().expect("volumes").iter().find_map(|volume| volume["secret"]["defaultMode"].as_u64());
    for (name, path) in [("secrets", SECRETS), ("configuration", CONFIGURATION)] {
        assert!(mounts.iter().any(|mount| mount["mountPath"] == path), "{path} is not mounted: {mounts:?}");
        fs::create_dir(mounted.join(name)).expect("a folder");
    }
    for (key, value) in [("password", "x"), (KEY, "a long random token")] {
        let path = mounted.join("secrets").join(key);
        fs::write(&path, value).expect("a key of the Secret");
        let mode = u32::try_from(mode.expect("a mode")).expect("a mode");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let toml = manifests.only("ConfigMap")["data"]["pilothouse.toml"].as_str().expect("a file");
    let account =
        format!("[[usage.accounts]]\nname = \"work\"\nsource = \"push\"\npush_token_file = \"{SECRETS}/{KEY}\"\n");
    fs::write(mounted.join("configuration/pilothouse.toml"), moved(&format!("{toml}\n{account}"))).expect("written");
    let token = own.service_account_token("pilothouse").await;
    let pilothouse = Pilothouse::new()
        .kubeconfig(&own.kubeconfig_for_token(&token))
        .variable("PILOTHOUSE__KUBERNETES__SOURCE", "kubeconfig");
    pod["containers"][0]["env"].as_array().expect("variables").iter().fold(pilothouse, |pilothouse, variable| {
        let [name, value] = ["name", "value"].map(|key| variable[key].as_str().expect("text"));
        pilothouse.variable(name, moved(value))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_the_shipped_service_reaches_the_daemon_behind_it() {
    with_namespaces(async |own, targets| {
        let manifests = Manifests::render("overlays/push").moved(&own.name, &targets.name).built_in();
        own.apply(&manifests.yaml()).await;
        let (port, labels) = behind(own, "pilothouse-push").await;
        let allowed = json!([{"namespaceSelector": {"matchLabels": {"pilothouse-push": "allowed"}}}]);
        assert_eq!(let_in(&manifests, &labels, port), [allowed]);

        let (mounted, free) = (Folder::new("pilothouse-mounted-"), free_port());
        let running = deployed(&manifests, own, &mounted, (port, free)).await.start();
        let limits = json!({ "seven_day": { "used_percentage": 83.0, "resets_at": week().as_second() } });
        let body = json!({ "sent_at": now().as_second(), "rate_limits": limits });
        let push = async |bearer: &str| {
            let url = format!("http://127.0.0.1:{free}/usage/v1/work");
            let sent = async {
                loop {
                    match http().post(&url).bearer_auth(bearer).json(&body).send().await {
                        Ok(answer) => return answer.status().as_u16(),
                        // It is there a moment after the start.
                        Err(error) => assert!(error.is_connect(), "{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(SOON, sent).await.unwrap_or_else(|_| panic!("nobody listens\n{:#?}", running.log()))
        };
        assert_eq!(push("another token").await, 401);
        assert_eq!(push("a long random token").await, 204);
        running.line("work/weekly_all", SOON).await;
    })
    .await;
}
