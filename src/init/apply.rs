//! What is applied in the cluster besides Secrets: the folder of `k8s/`, or a `kustomization.yaml` of one's own where the
//! shipped ones do not say enough. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::draft::Draft;

/// Name of Secret and namespace in the shipped manifests.
pub(super) const SECRET: &str = "pilothouse";
/// The login's Secret that the shipped Role names.
const LOGIN: &str = "pilothouse-claude";
/// Role and RoleBinding of the component `usage`.
const ROLE: &str = "pilothouse-usage";
/// Service of the component `push`, and its port.
const PUSH: (&str, u16) = ("pilothouse-push", 9091);

/// What the watched accounts need of the manifests.
struct Needed<'a> {
    /// Logins in Secrets: names by namespace.
    logins: BTreeMap<&'a str, Vec<&'a str>>,
    /// Whether workstations push.
    pushed: bool,
}

impl<'a> Needed<'a> {
    fn of(draft: &'a Draft) -> Self {
        let mut needed = Self { logins: BTreeMap::new(), pushed: false };
        for row in draft.accounts() {
            needed.pushed |= text(row, "source") == Some("push");
            if let (Some(name), Some(namespace)) = (text(row, "secret"), text(row, "namespace")) {
                let names = needed.logins.entry(namespace).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        needed
    }

    fn components(&self) -> Vec<&'static str> {
        let all = [("usage", !self.logins.is_empty()), ("push", self.pushed)];
        all.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
    }

    /// Whether the shipped Role names the Secrets already.
    fn is_usual(&self) -> bool {
        self.logins.iter().all(|(namespace, names)| *namespace == SECRET && names == &[LOGIN])
    }

    /// The namespace that the one Role of the component is for; the others need a copy.
    fn home(&self) -> Option<(&'a str, &[&'a str])> {
        let found = self.logins.get_key_value(SECRET).or_else(|| self.logins.first_key_value());
        found.map(|(namespace, names)| (*namespace, names.as_slice()))
    }
}

/// Says what to apply, and what the logins' Secrets need; `namespace` is that of Pilothouse's own Secret.
pub(super) fn words(draft: &Draft, namespace: &str) -> String {
    let needed = Needed::of(draft);
    let first = if namespace == SECRET {
        format!("kubectl create namespace {SECRET}, apply the Secret,")
    } else {
        format!(
            "the manifests are for the namespace {SECRET}: give yours `namespace: {namespace}`, as in\n\
             k8s/overlays/tenant, or the pod does not find its Secret. Then apply the Secret,"
        )
    };
    let mut text = format!(
        "\nIn the cluster: {first} put {} in place of\n\
         k8s/base/pilothouse.toml, and name the same targets in k8s/base/targets.yaml.",
        draft.paths.file.display()
    );
    for (namespace, names) in &needed.logins {
        for name in names {
            let _ = write!(
                text,
                "\nThe login needs a right of its own. Role {ROLE}: get, patch secrets/{name} in {namespace}."
            );
        }
    }
    let _ = match (needed.components().as_slice(), needed.is_usual()) {
        ([], _) => write!(text, "\nThen: kubectl apply -k k8s/base"),
        ([one], true) => write!(text, "\nThen: kubectl apply -k k8s/overlays/{one}"),
        _ => write!(
            text,
            "\nFor that write k8s/overlays/own/kustomization.yaml:\n\n{}\nThen: kubectl apply -k k8s/overlays/own",
            kustomization(&needed)
        ),
    };
    let home = needed.home().map(|(namespace, _)| namespace);
    for (namespace, names) in needed.logins.iter().filter(|(namespace, _)| Some(**namespace) != home) {
        let _ = write!(
            text,
            "\nOf k8s/components/usage/role.yaml apply a copy for the namespace {namespace}, with resourceNames: [{}].",
            names.join(", ")
        );
    }
    text
}

/// The base with its components; where the Secrets are others than the shipped Role names, that is patched.
fn kustomization(needed: &Needed<'_>) -> String {
    let mut text = String::from(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- ../../base\ncomponents:\n",
    );
    for component in needed.components() {
        let _ = writeln!(text, "- ../../components/{component}");
    }
    let Some((namespace, names)) = needed.home().filter(|_| !needed.is_usual()) else { return text };
    let place = format!("    - {{op: replace, path: /metadata/namespace, value: {namespace:?}}}\n");
    let _ = write!(
        text,
        "patches:\n\
         - target: {{kind: Role, name: {ROLE}}}\n  patch: |\n{place}    \
         - {{op: replace, path: /rules/0/resourceNames, value: {names:?}}}\n\
         - target: {{kind: RoleBinding, name: {ROLE}}}\n  patch: |\n{place}"
    );
    text
}

/// Says where the workstations of an account send, and how they get their token, which is a key of the Secret in
/// `namespace`.
pub(super) fn pushes(account: &str, token: &str, namespace: &str) -> String {
    let (service, port) = PUSH;
    // A dot is a step of the path.
    let key = token.replace('.', "\\.");
    format!(
        "Workstations of {account} send to https://<your host>/usage/v1/{account}: put what speaks TLS in your cluster (Ingress,\n\
         gateway) before http://{service}.{namespace}.svc:{port}, and let its namespace in:\n  \
         kubectl label namespace <its namespace> {service}=allowed\n\
         Their bearer token:\n  \
         kubectl get secret {SECRET} --namespace {namespace} --output 'jsonpath={{.data.{key}}}' | base64 --decode"
    )
}

pub(super) fn text<'a>(row: &'a Table, key: &str) -> Option<&'a str> {
    row.get(key).and_then(Value::as_str)
}
