//! Layer 1: Kubernetes wire types of the group `workshop.platform`; doc comments are the text of `kubectl explain`.
//!
//! Wire types are not domain types: what is read from a file is converted here, and nothing else of the product
//! keeps its state in them. No client, no IO.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub mod conditions;
pub mod instance;
pub mod labels;
pub mod repository;
pub mod schema;
pub mod settings;
pub mod template;
pub mod validate;

pub use instance::{WorkspaceInstance, WorkspaceInstanceSpec, WorkspaceInstanceStatus};
pub use repository::{WorkshopRepository, WorkshopRepositorySpec, WorkshopRepositoryStatus};
pub use settings::WorkspaceSettings;
pub use template::{WorkspaceTemplate, WorkspaceTemplateSpec, WorkspaceTemplateStatus};
pub use validate::{Violation, validate};

/// The API group of every kind.
pub const GROUP: &str = "workshop.platform";

/// The one version that is served.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of every object.
pub const API_VERSION: &str = "workshop.platform/v1alpha1";

/// One of our kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A repository that the cluster follows.
    WorkshopRepository,
    /// What a workshop became.
    WorkspaceTemplate,
    /// One workspace.
    WorkspaceInstance,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::WorkshopRepository, Self::WorkspaceTemplate, Self::WorkspaceInstance];

    /// The name in `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WorkshopRepository => "WorkshopRepository",
            Self::WorkspaceTemplate => "WorkspaceTemplate",
            Self::WorkspaceInstance => "WorkspaceInstance",
        }
    }

    /// The name in URLs and rights.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::WorkshopRepository => "workshoprepositories",
            Self::WorkspaceTemplate => "workspacetemplates",
            Self::WorkspaceInstance => "workspaceinstances",
        }
    }

    /// Whether its objects are in namespaces.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::WorkspaceTemplate)
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its definition, as it is put into a cluster.
    #[must_use]
    pub fn definition(self) -> serde_json::Value {
        let definition: CustomResourceDefinition = match self {
            Self::WorkshopRepository => WorkshopRepository::crd(),
            Self::WorkspaceTemplate => WorkspaceTemplate::crd(),
            Self::WorkspaceInstance => WorkspaceInstance::crd(),
        };
        let mut value = serde_json::to_value(definition).expect("a definition is plain data with text keys");
        schema::clean(&mut value);
        value
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(format) = map.get("format").and_then(serde_json::Value::as_str) {
                    found.push(format.to_owned());
                }
                map.values().for_each(|value| formats(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| formats(value, found)),
            _ => {}
        }
    }

    #[test]
    fn definitions_use_only_formats_that_the_api_server_knows() {
        for kind in Kind::ALL {
            let mut found = Vec::new();
            formats(&kind.definition(), &mut found);
            for format in found {
                assert!(["int32", "int64", "date-time"].contains(&format.as_str()), "{kind}: {format}");
            }
        }
    }

    #[test]
    fn the_table_of_kinds_agrees_with_the_definitions() {
        for kind in Kind::ALL {
            let definition = kind.definition();
            assert_eq!(definition["spec"]["names"]["kind"], kind.name());
            assert_eq!(definition["spec"]["names"]["plural"], kind.plural());
            assert_eq!(definition["spec"]["scope"] == "Namespaced", kind.is_namespaced());
            assert_eq!(definition["spec"]["group"], GROUP);
            assert_eq!(definition["spec"]["versions"][0]["name"], VERSION);
            assert!(definition["spec"]["versions"][0]["subresources"]["status"].is_object());
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
    }

    #[test]
    fn no_printer_column_shows_a_secret() {
        for kind in Kind::ALL {
            for column in
                kind.definition()["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("columns")
            {
                let path = column["jsonPath"].as_str().expect("a path").to_lowercase();
                assert!(!path.contains("secret") && !path.contains("token"), "{kind}: {path}");
            }
        }
    }
}
