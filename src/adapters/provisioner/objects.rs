//! What a rendered chart may hold: objects of one namespace, of kinds that do not reach beyond it.
//!
//! Pure; the text is another program's and is not trusted.

use serde_json::Value;

/// The most objects of a chart.
const MAX_OBJECTS: usize = 200;

/// The kinds that are taken, in the order in which they are applied.
const KINDS: [(&str, &str); 11] = [
    ("v1", "ServiceAccount"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "Deployment"),
];

/// Why a rendered chart is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// It is no YAML.
    #[error("it does not render to YAML: {0}")]
    NotYaml(String),
    /// Something that could reach beyond the namespace, or that nobody here knows.
    #[error("{kind} \"{name}\" ({api_version}) is none of the kinds that a workspace's cluster may be made of")]
    Kind {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// It is meant for another namespace.
    #[error("{kind} \"{name}\" is for the namespace \"{namespace}\", not for the workspace's")]
    Namespace {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// The namespace that it names.
        namespace: String,
    },
    /// An object without a name.
    #[error("a {0} has no name")]
    Unnamed(String),
    /// There are too many.
    #[error("it has more than {MAX_OBJECTS} objects")]
    TooMany,
    /// There are none.
    #[error("it has no objects")]
    Empty,
}

/// Reads what helm printed: every object is in `namespace`, whether it says so or not.
pub fn parse_rendered(text: &[u8], namespace: &str) -> Result<Vec<Value>, ObjectsError> {
    let text = std::str::from_utf8(text).map_err(|error| ObjectsError::NotYaml(error.to_string()))?;
    let documents: Vec<Value> =
        serde_yaml::from_multiple(text).map_err(|error| ObjectsError::NotYaml(first_line(&error.to_string())))?;
    let mut objects = Vec::new();
    for mut object in documents.into_iter().filter(|document| !document.is_null()) {
        if objects.len() == MAX_OBJECTS {
            return Err(ObjectsError::TooMany);
        }
        let field = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind, name) = (field("/apiVersion"), field("/kind"), field("/metadata/name"));
        let Some(order) = KINDS.iter().position(|known| *known == (&api_version, &kind)) else {
            return Err(ObjectsError::Kind { api_version, kind, name });
        };
        if name.is_empty() {
            return Err(ObjectsError::Unnamed(kind));
        }
        let named = field("/metadata/namespace");
        if !named.is_empty() && named != namespace {
            return Err(ObjectsError::Namespace { kind, name, namespace: named });
        }
        object["metadata"]["namespace"] = namespace.into();
        objects.push((order, object));
    }
    if objects.is_empty() {
        return Err(ObjectsError::Empty);
    }
    objects.sort_by_key(|(order, _)| *order);
    Ok(objects.into_iter().map(|(_, object)| object).collect())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Vec<&str>, &str>) {
        let found = parse_rendered(text.as_bytes(), "ws-ada-lab");
        let found = found.map(|objects| {
            objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        });
        match (found, expected) {
            (Ok(kinds), Ok(expected)) => assert_eq!(kinds, expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn objects_come_in_the_order_in_which_they_need_each_other() {
        check(
            "---\n# Source: a\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: c}\n---\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: c, namespace: ws-ada-lab}\n",
            Ok(vec!["ServiceAccount", "StatefulSet"]),
        );
    }

    #[test]
    fn what_reaches_beyond_the_namespace_is_refused() {
        let object = |kind: &str, more: &str| format!("apiVersion: {kind}\nmetadata: {{name: c{more}}}\n");
        check(
            &object("rbac.authorization.k8s.io/v1\nkind: ClusterRole", ""),
            Err("ClusterRole \"c\" (rbac.authorization.k8s.io/v1) is none of the kinds"),
        );
        check(&object("v1\nkind: Namespace", ""), Err("Namespace \"c\""));
        check(&object("v1\nkind: Secret", ", namespace: kube-system"), Err("for the namespace \"kube-system\""));
        check("apiVersion: v1\nkind: Secret\n", Err("has no name"));
        check("", Err("no objects"));
        check("{", Err("does not render to YAML"));
    }

    #[test]
    fn every_object_is_in_the_workspaces_namespace() {
        let objects = parse_rendered(b"apiVersion: v1\nkind: Secret\nmetadata: {name: c}\n", "ws-ada-lab").unwrap();
        assert_eq!(objects[0]["metadata"]["namespace"], "ws-ada-lab");
    }
}
