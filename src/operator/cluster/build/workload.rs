//! The pod of a workspace: one container, the step's image, as little power as its learner's work allows.

use serde_json::{Value, json};

use super::lab::{access, has_lab, has_own_cluster};
use super::own_cluster;
use super::{NAME, PERSIST, PULL, Subject, Surroundings, TOKEN, artifact_name, labels_of, object};
use crate::adapters::cluster::Part;
use crate::crd::labels;
use crate::domain::container::place;
use crate::domain::lifecycle::Start;
use crate::domain::workspace::User;

/// How long an ending pod keeps the next one waiting. With 0 its object goes at once and the next pod begins, while the
/// kubelet still sends SIGTERM and leaves at least a second: the backend needs a tenth of it to hand its progress over,
/// and an epoch keeps one that is late from writing. On a volume the two must not meet.
const GRACE: (u32, u32) = (0, 5);
/// How long a rollout may take: pulling a large image is the longest part of it.
pub const ROLLOUT_WITHIN: u32 = 600;

/// What the backend needs to prepare a learner's account and to become that learner.
const LEARNER: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"];
/// What lessons on administration need besides; no more than Pod Security's baseline has.
const ROOT: [&str; 6] = ["AUDIT_WRITE", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETPCAP", "SYS_CHROOT"];

/// What the Deployment of one start is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload<'a> {
    /// Whose it is.
    pub subject: &'a Subject,
    /// What is the same for all.
    pub around: &'a Surroundings,
    /// What is started.
    pub start: &'a Start,
    /// Tells this start from the one before: a pod of its own even with the same image.
    pub attempt: &'a str,
    /// The identity of the objects around it.
    pub surroundings: &'a str,
    /// The artifact is in a ConfigMap; else the backend fetches it.
    pub is_carried: bool,
    /// There is a Secret to pull with.
    pub has_pull: bool,
}

/// The Deployment of a workspace.
#[must_use]
pub fn build_deployment(workload: &Workload<'_>) -> Value {
    let Workload { subject, start, attempt, surroundings, .. } = workload;
    let mut deployment = object(Part::Deployment, NAME);
    deployment["metadata"]["labels"] = labels_of(subject);
    deployment["metadata"]["annotations"] = json!({ labels::SURROUNDINGS: surroundings });
    deployment["spec"] = json!({
        "replicas": 1,
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": ROLLOUT_WITHIN,
        "strategy": { "type": "Recreate" },
        "selector": { "matchLabels": { labels::APP: NAME } },
        "template": {
            "metadata": {
                "labels": {
                    labels::APP: NAME,
                    labels::PART_OF: labels::PART_OF_VALUE,
                    labels::WORKSHOP: subject.workshop,
                },
                "annotations": {
                    labels::FINGERPRINT: start.fingerprint,
                    labels::STEP: start.step,
                    labels::START: attempt,
                },
            },
            "spec": build_pod(workload),
        },
    });
    deployment
}

fn build_pod(workload: &Workload<'_>) -> Value {
    let Workload { subject, around, start, is_carried, has_pull, .. } = workload;
    let mut volumes = vec![
        json!({ "name": "state", "emptyDir": {} }),
        json!({ "name": "token", "secret": { "secretName": TOKEN.0, "defaultMode": 0o400 } }),
    ];
    let mut mounts = vec![
        json!({ "name": "state", "mountPath": place::STATE }),
        json!({ "name": "token", "mountPath": directory(place::TOKEN), "readOnly": true }),
    ];
    if *is_carried {
        // The checks are in it: not for the learner to read.
        let map = json!({ "name": artifact_name(&start.artifact), "defaultMode": 0o400 });
        volumes.push(json!({ "name": "artifact", "configMap": map }));
        mounts.push(json!({ "name": "artifact", "mountPath": directory(place::ARTIFACT), "readOnly": true }));
    }
    if start.settings.lifecycle.persist.is_some() {
        volumes.push(json!({ "name": PERSIST, "persistentVolumeClaim": { "claimName": PERSIST } }));
        mounts.push(json!({ "name": PERSIST, "mountPath": place::PERSIST }));
    }
    let mut environment = environment(workload);
    if has_own_cluster(start) {
        let (volume, mount) = own_cluster::access();
        volumes.push(volume);
        mounts.push(mount);
    } else if has_lab(start) {
        let (volume, mount, variable) = access(subject);
        volumes.push(volume);
        mounts.push(mount);
        environment.push(variable);
    }
    let resources = &start.settings.resources;
    let mut pod = json!({
        "serviceAccountName": NAME,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": if start.settings.lifecycle.persist.is_some() { GRACE.1 } else { GRACE.0 },
        "hostname": hostname(&subject.name),
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": NAME,
            "image": start.image,
            "imagePullPolicy": "IfNotPresent",
            "env": environment,
            "ports": [{ "name": "http", "containerPort": place::PORT, "protocol": "TCP" }],
            "resources": {
                "limits": { "cpu": resources.cpu.as_str(), "memory": resources.memory.as_str() },
                // Learners read more than they compute: a class shares its node.
                "requests": {
                    "cpu": format!("{}m", (resources.cpu.thousandths() / 10).max(1)),
                    "memory": (resources.memory.units() / 4).max(1).to_string(),
                },
            },
            "securityContext": security(start.settings.isolation.user),
            "readinessProbe": probe("/readyz", 1, 3),
            "livenessProbe": probe("/healthz", 10, 6),
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    if let Some(class) = &start.settings.isolation.runtime_class {
        pod["runtimeClassName"] = class.as_str().into();
    }
    if around.user_namespaces {
        pod["hostUsers"] = false.into();
    }
    if *has_pull {
        pod["imagePullSecrets"] = json!([{ "name": PULL }]);
    }
    pod
}

fn environment(workload: &Workload<'_>) -> Vec<Value> {
    let Workload { subject, around, start, .. } = workload;
    let settings = serde_json::to_string(&start.settings).expect("settings are plain data with text keys");
    let mut environment = vec![
        ("WORKSHOP_INSTANCE", subject.uid.clone()),
        ("WORKSHOP_STEP", start.step.clone()),
        ("WORKSHOP_VERIFY_KEY", around.verify_key.clone()),
        ("WORKSHOP_TOKEN_GENERATION", "0".to_owned()),
        ("WORKSHOP_BASE_PATH", subject.base_path()),
        // Text with $(NAME) in it is the author's, not Kubernetes' to replace.
        ("WORKSHOP_SETTINGS", settings.replace("$(", "$$(")),
    ];
    if let Some(url) = &around.management_url {
        environment.push(("WORKSHOP_MANAGEMENT_URL", url.clone()));
    }
    environment.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// The backend begins as root whatever the image's user is, and drops what it has for the learner.
fn security(user: User) -> Value {
    let mut capabilities = LEARNER.to_vec();
    if user == User::Root {
        capabilities.extend(ROOT);
    }
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        // Administration includes programs that change the user, such as su.
        "allowPrivilegeEscalation": user == User::Root,
        "capabilities": { "drop": ["ALL"], "add": capabilities },
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": place::PORT },
        "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
    })
}

/// The directory of a file of the container contract.
fn directory(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(directory, _)| directory)
}

/// The instance's name as a host's: at most 63 of a-z, 0-9 and -.
fn hostname(name: &str) -> String {
    let plain = name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' });
    let cut: String = plain.take(63).collect();
    cut.trim_matches('-').to_lowercase()
}
