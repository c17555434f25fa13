//! The controllers and the kubelet: what becomes of the objects as time goes by.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pod::{GRACE, Pod, Stage};
use super::{Cluster, Key, seconds, status, text};

/// What a workload's specification asks for.
struct Wanted {
    replicas: usize,
    template: String,
    labels: Value,
    spec: Value,
}

impl Wanted {
    fn read(workload: &Value) -> Self {
        let template = &workload["spec"]["template"];
        let hash = short_hash(&template.to_string(), 10);
        let mut labels = template["metadata"]["labels"].clone();
        // The controllers mark what they make from a template.
        if workload["kind"] == "StatefulSet" {
            labels["controller-revision-hash"] = json!(format!("{}-{hash}", text(workload, "/metadata/name")));
        } else {
            labels["pod-template-hash"] = json!(hash);
        }
        Self {
            replicas: workload["spec"]["replicas"].as_i64().map_or(1, |n| usize::try_from(n).unwrap_or(0)),
            template: hash,
            labels,
            spec: template["spec"].clone(),
        }
    }
}

/// A workload's pods that nobody asked to end, oldest first.
struct Living {
    key: Key,
    current: bool,
    ready: bool,
}

impl Cluster {
    /// Moves everything on to a moment. Repeating it changes nothing.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.bury(now);
        for plural in ["deployments", "statefulsets"] {
            let keys: Vec<Key> = self.list(plural, None).map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.reconcile(&key, now);
            }
        }
        self.show_pods(now);
        for plural in ["deployments", "statefulsets"] {
            let keys: Vec<Key> = self.list(plural, None).map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.show_status(&key, now);
            }
        }
    }

    /// Removes pods whose time has come and what has lost its owner.
    fn bury(&mut self, now: Timestamp) {
        let gone: Vec<Key> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.dying.is_some_and(|since| now >= since + GRACE))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&key);
        }
        let orphans: Vec<Key> = self
            .list("replicasets", None)
            .filter(|(key, set)| {
                let owner = text(set, "/metadata/ownerReferences/0/name");
                !self.objects.contains_key(&Key::new("deployments", &key.namespace, owner))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            self.remove(&key);
        }
        let Self { pods, objects, .. } = self;
        for pod in pods.values_mut().filter(|pod| !objects.contains_key(&pod.workload)) {
            pod.dying.get_or_insert(now);
        }
    }

    fn reconcile(&mut self, key: &Key, now: Timestamp) {
        let Some(workload) = self.objects.get(key).cloned() else { return };
        let wanted = Wanted::read(&workload);
        let living = self.living(key, &wanted.template, now);
        if key.plural == "statefulsets" {
            self.reconcile_in_order(key, &workload, &wanted, &living, now);
        } else {
            self.reconcile_at_once(key, &workload, &wanted, &living, now);
        }
    }

    /// A Deployment: new pods all at once, an old one ends when a new one is ready for it.
    fn reconcile_at_once(&mut self, key: &Key, workload: &Value, wanted: &Wanted, living: &[Living], now: Timestamp) {
        let set = Key::new("replicasets", &key.namespace, &format!("{}-{}", key.name, wanted.template));
        self.show_replica_sets(key, &set, workload, wanted, now);
        let (current, old): (Vec<_>, Vec<_>) = living.iter().partition(|pod| pod.current);
        for _ in current.len()..wanted.replicas {
            let name = format!("{}-{}", set.name, self.suffix());
            let owner = self.owner(&set, "ReplicaSet");
            self.spawn(key, &name, owner, wanted, now);
        }
        // The youngest go first, as they have served the shortest.
        for pod in current.iter().skip(wanted.replicas) {
            self.end(&pod.key, now);
        }
        let ready = current.iter().take(wanted.replicas).filter(|pod| pod.ready).count();
        for pod in old.iter().skip(wanted.replicas - ready) {
            self.end(&pod.key, now);
        }
    }

    /// A `StatefulSet`: one pod after the other, the last one ends first.
    fn reconcile_in_order(&mut self, key: &Key, workload: &Value, wanted: &Wanted, living: &[Living], now: Timestamp) {
        let calm = living.iter().all(|pod| pod.ready)
            && self.pods.values().all(|pod| pod.workload != *key || pod.dying.is_none());
        if living.len() > wanted.replicas {
            if let Some(last) = living.last() {
                self.end(&last.key, now);
            }
            return;
        }
        if !calm {
            return;
        }
        if let Some(old) = living.iter().rev().find(|pod| !pod.current) {
            self.end(&old.key, now);
            return;
        }
        let missing = (0..wanted.replicas)
            .map(|ordinal| format!("{}-{ordinal}", key.name))
            .find(|name| living.iter().all(|pod| pod.key.name != *name));
        if let Some(name) = missing {
            let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": key.name, "controller": true,
                               "uid": workload["metadata"]["uid"], "blockOwnerDeletion": true});
            self.spawn(key, &name, owner, wanted, now);
        }
    }

    fn living(&self, workload: &Key, template: &str, now: Timestamp) -> Vec<Living> {
        let mut pods: Vec<(&Key, &Pod)> =
            self.pods.iter().filter(|(_, pod)| pod.workload == *workload && pod.dying.is_none()).collect();
        pods.sort_by_key(|(key, pod)| (pod.born, key.name.clone()));
        pods.into_iter()
            .map(|(key, pod)| Living { key: key.clone(), current: pod.template == template, ready: pod.is_ready(now) })
            .collect()
    }

    fn spawn(&mut self, workload: &Key, name: &str, owner: Value, wanted: &Wanted, now: Timestamp) {
        let key = Key::new("pods", &workload.namespace, name);
        let uid = self.uid();
        // Between one and three seconds, never the same twice in a row.
        let settles_after = SignedDuration::from_millis(1000 + i64::try_from(self.made * 617 % 2000).unwrap_or(0));
        let pod = Pod {
            workload: workload.clone(),
            owner,
            uid,
            template: wanted.template.clone(),
            labels: wanted.labels.clone(),
            spec: wanted.spec.clone(),
            born: now,
            settles_after,
            dying: None,
            address: format!("10.1.0.{}", self.made % 250 + 2),
        };
        self.pods.insert(key, pod);
    }

    fn end(&mut self, pod: &Key, now: Timestamp) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.dying.get_or_insert(now);
        }
    }

    /// Writes the pods' objects, with an Event where one begins to fail.
    fn show_pods(&mut self, now: Timestamp) {
        let pods: Vec<(Key, Pod)> = self.pods.iter().map(|(key, pod)| (key.clone(), pod.clone())).collect();
        for (key, pod) in pods {
            let before = self.objects.get(&key).map(waiting_reason);
            let mut object = pod.object(&key, now);
            object["metadata"]["resourceVersion"] =
                self.objects.get(&key).map_or(Value::Null, |shown| shown["metadata"]["resourceVersion"].clone());
            let reason = waiting_reason(&object);
            self.put(key.clone(), object);
            if before.is_some_and(|before| before != reason) {
                match pod.stage(now) {
                    Stage::PullFailed => {
                        let message = format!("Failed to pull image \"{}\": not found", pod.image());
                        self.note(&key, "kubelet", "Failed", &message, now);
                    }
                    Stage::CrashLoop => {
                        self.note(&key, "kubelet", "BackOff", "Back-off restarting failed container", now);
                    }
                    Stage::Creating | Stage::Ready | Stage::PullBackOff | Stage::Crashed => {}
                }
            }
        }
    }

    /// Writes a Deployment's `ReplicaSet`s: the one of its present template, and what is left of older ones.
    fn show_replica_sets(&mut self, key: &Key, set: &Key, workload: &Value, wanted: &Wanted, now: Timestamp) {
        if !self.objects.contains_key(set) {
            let mut template = workload["spec"]["template"].clone();
            template["metadata"]["labels"] = wanted.labels.clone();
            let object = json!({
                "kind": "ReplicaSet", "apiVersion": "apps/v1",
                "metadata": {
                    "labels": wanted.labels,
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": key.name,
                                         "uid": workload["metadata"]["uid"], "controller": true,
                                         "blockOwnerDeletion": true}],
                },
                "spec": {"replicas": 0, "selector": {"matchLabels": wanted.labels}, "template": template},
                "status": {"replicas": 0},
            });
            self.create(set.clone(), object, now).ok();
        }
        let uid = text(workload, "/metadata/uid");
        let owned: Vec<(Key, Value)> = self
            .list("replicasets", Some(&key.namespace))
            .filter(|(_, object)| text(object, "/metadata/ownerReferences/0/uid") == uid)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for (name, mut object) in owned {
            let template = name.name.rsplit('-').next().unwrap_or_default().to_owned();
            let pods: Vec<&Pod> = self
                .pods
                .values()
                .filter(|pod| pod.workload == *key && pod.template == template && pod.dying.is_none())
                .collect();
            let replicas = if name == *set { wanted.replicas } else { pods.len() };
            let ready = pods.iter().filter(|pod| pod.is_ready(now)).count();
            let status = json!({"replicas": pods.len(), "readyReplicas": ready, "availableReplicas": ready,
                                "fullyLabeledReplicas": pods.len(), "observedGeneration": 1});
            let before = object["spec"]["replicas"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            object["spec"]["replicas"] = json!(replicas);
            object["status"] = status;
            self.put(name.clone(), object);
            if before != replicas {
                let way = if replicas > before { "up" } else { "down" };
                let message = format!("Scaled {way} replica set {} from {before} to {replicas}", name.name);
                self.note(key, "deployment-controller", "ScalingReplicaSet", &message, now);
            }
        }
    }

    fn show_status(&mut self, key: &Key, now: Timestamp) {
        let Some(mut object) = self.objects.get(key).cloned() else { return };
        let wanted = Wanted::read(&object);
        let living = self.living(key, &wanted.template, now);
        let counts = status::Counts {
            wanted: wanted.replicas,
            living: living.len(),
            updated: living.iter().filter(|pod| pod.current).count(),
            ready: living.iter().filter(|pod| pod.ready).count(),
        };
        object["status"] = if key.plural == "statefulsets" {
            status::stateful_set(&object, counts, &format!("{}-{}", key.name, wanted.template))
        } else {
            status::deployment(&object, counts, now)
        };
        self.put(key.clone(), object);
    }

    fn owner(&self, key: &Key, kind: &str) -> Value {
        let uid = self.objects.get(key).map(|object| text(object, "/metadata/uid")).unwrap_or_default();
        json!({"apiVersion": "apps/v1", "kind": kind, "name": key.name, "uid": uid, "controller": true,
               "blockOwnerDeletion": true})
    }

    fn suffix(&mut self) -> String {
        self.made += 1;
        short_hash(&self.made.to_string(), 5)
    }
}

fn waiting_reason(pod: &Value) -> String {
    text(pod, "/status/containerStatuses/0/state/waiting/reason").to_owned()
}

fn short_hash(text: &str, length: usize) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text));
    hash.truncate(length);
    hash
}

/// The time of a condition as the status keeps it.
pub(super) fn stamp(now: Timestamp) -> Value {
    json!(seconds(now))
}
