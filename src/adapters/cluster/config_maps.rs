//! ConfigMaps in the namespaces of workspaces, one at a time and by name: never listed, watched or kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap as Object;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Cluster, Error};

/// What is in a ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Its texts.
    pub data: BTreeMap<String, String>,
    /// Its bytes.
    pub binary_data: BTreeMap<String, Vec<u8>>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The version that was read; empty for one that is to be made.
    pub resource_version: String,
}

impl Cluster {
    /// The ConfigMap of this name.
    pub async fn read_config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
        let attempt = format!("read the ConfigMap \"{namespace}/{name}\"");
        let maps: Api<Object> = Api::namespaced(self.client.clone(), namespace);
        let found = self.call(&attempt, maps.get_opt(name)).await?;
        Ok(found.map(|object| ConfigMap {
            data: object.data.unwrap_or_default(),
            binary_data: object
                .binary_data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, bytes)| (key, bytes.0))
                .collect(),
            annotations: object.metadata.annotations.unwrap_or_default(),
            labels: object.metadata.labels.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
        }))
    }

    /// Makes the ConfigMap, or puts `data` and `annotations` in place of those of the version that was read.
    ///
    /// [`Error::Stale`] where somebody made or changed it since.
    pub async fn write_config_map(
        &self,
        namespace: &str,
        name: &str,
        before: Option<&ConfigMap>,
        after: &ConfigMap,
        manager: &str,
    ) -> Result<(), Error> {
        let attempt = format!("write the ConfigMap \"{namespace}/{name}\"");
        let maps: Api<Object> = Api::namespaced(self.client.clone(), namespace);
        let Some(before) = before else {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                annotations: Some(after.annotations.clone()),
                labels: Some(after.labels.clone()),
                ..ObjectMeta::default()
            };
            let object = Object { metadata, data: Some(after.data.clone()), ..Object::default() };
            let parameters = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
            return self.call(&attempt, maps.create(&parameters, &object)).await.map(drop);
        };
        // A patch, because the right to update is not among those in the namespaces of workspaces.
        let patch = json!({
            "metadata": {
                "resourceVersion": before.resource_version,
                "annotations": changes(&before.annotations, &after.annotations),
            },
            "data": changes(&before.data, &after.data),
        });
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.call(&attempt, maps.patch(name, &parameters, &Patch::Merge(&patch))).await.map(drop)
    }
}

/// What has to be merged into `before` to get `after`.
fn changes<'a>(
    before: &'a BTreeMap<String, String>,
    after: &'a BTreeMap<String, String>,
) -> BTreeMap<&'a str, Option<&'a str>> {
    let lost = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.as_str(), None));
    let wished = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    lost.chain(wished.map(|(key, value)| (key.as_str(), Some(value.as_str())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_gone_are_removed_and_equal_ones_are_not_written() {
        let of = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (before, after) = (of(&[("a", "1"), ("b", "2"), ("c", "3")]), of(&[("a", "1"), ("c", "4"), ("d", "")]));
        let expected = BTreeMap::from([("b", None), ("c", Some("4")), ("d", Some(""))]);
        assert_eq!(changes(&before, &after), expected);
    }
}
