//! The room around a workspace: its namespace with what bounds it, and the account that can do nothing.

use serde_json::{Value, json};

use super::{MANAGER_ROLE, NAME, Object, PERSIST, Subject, Surroundings, labels_of, object};
use crate::adapters::cluster::Part;
use crate::crd::labels;
use crate::domain::lifecycle::Start;

/// The namespace, and the binding by which the operator comes by its rights in it.
#[must_use]
pub fn build_namespace(subject: &Subject, around: &Surroundings) -> [Object; 2] {
    let mut namespace = object(Part::Namespace, &subject.room());
    namespace["metadata"]["labels"] = labels_of(subject);
    let names = namespace["metadata"]["labels"].as_object_mut();
    if let Some(names) = names {
        names.insert(labels::WORKSHOP.to_owned(), subject.workshop.as_str().into());
        names.insert("pod-security.kubernetes.io/enforce".to_owned(), "baseline".into());
    }
    namespace["metadata"]["annotations"] = json!({
        labels::INSTANCE: format!("{}/{}", subject.namespace, subject.name),
    });
    let mut binding = object(Part::RoleBinding, MANAGER_ROLE);
    binding["metadata"]["labels"] = labels_of(subject);
    binding["roleRef"] =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": MANAGER_ROLE });
    binding["subjects"] = json!([operator_subject(around)]);
    [Object { part: Part::Namespace, manifest: namespace }, Object { part: Part::RoleBinding, manifest: binding }]
}

/// The operator as role bindings name it.
pub(super) fn operator_subject(around: &Surroundings) -> Value {
    let account = around.operator.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, name)) => json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name }),
        None => json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": around.operator }),
    }
}

/// Quota, limits, the account and, where it is wished, the volume.
#[must_use]
pub fn build_room(start: &Start) -> Vec<Object> {
    let (resources, lifecycle) = (&start.settings.resources, &start.settings.lifecycle);
    let mut quota = object(Part::ResourceQuota, NAME);
    // Room for two of each. Of pods, because a workspace that wakes may begin while the one that went to sleep is still
    // ending. Of the others, because a creation that is cut off after it was charged, by the end of this process or of
    // a connection, makes nothing and stays charged for minutes.
    let mut hard = json!({
        "pods": "2",
        "limits.cpu": format!("{}m", resources.cpu.thousandths() * 2),
        "limits.memory": (resources.memory.units() * 2).to_string(),
        "services": "2",
        "services.nodeports": "0",
        "services.loadbalancers": "0",
        "persistentvolumeclaims": "0",
    });
    if let Some(size) = &lifecycle.persist {
        hard["persistentvolumeclaims"] = "2".into();
        hard["requests.storage"] = (size.units() * 2).to_string().into();
    }
    quota["spec"] = json!({ "hard": hard });
    let mut limits = object(Part::LimitRange, NAME);
    let all = json!({ "cpu": resources.cpu.as_str(), "memory": resources.memory.as_str() });
    limits["spec"] = json!({ "limits": [{ "type": "Container", "default": all, "max": all }] });
    let mut account = object(Part::ServiceAccount, NAME);
    account["automountServiceAccountToken"] = false.into();
    let mut objects = vec![
        Object { part: Part::ResourceQuota, manifest: quota },
        Object { part: Part::LimitRange, manifest: limits },
        Object { part: Part::ServiceAccount, manifest: account },
    ];
    if let Some(size) = &lifecycle.persist {
        let mut claim = object(Part::PersistentVolumeClaim, PERSIST);
        claim["spec"] = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": size.as_str() } },
        });
        objects.push(Object { part: Part::PersistentVolumeClaim, manifest: claim });
    }
    objects
}
