//! WorkshopRepository: a Git repository whose workshops the cluster follows.
//!
//! The doc comments of this file are the text of `kubectl explain`; rules a schema can say stand beside the fields,
//! and `validate.rs` says the same in Rust.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What to follow and how. The credentials are in Secrets that this names, never here.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "workshop.platform",
    version = "v1alpha1",
    kind = "WorkshopRepository",
    plural = "workshoprepositories",
    namespaced,
    status = "WorkshopRepositoryStatus",
    derive = "PartialEq",
    shortname = "wsr",
    category = "workshop",
    doc = "A Git repository whose workshops the cluster follows: each becomes images and a WorkspaceTemplate.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Workshops", type_ = "integer", json_path = ".status.counts.workshops"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.lastAppliedRevision"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkshopRepositorySpec {
    /// Where the repository is: https://, http://, ssh://, git@host:path, or file:// for a path that the controller
    /// can read. Without a password; that belongs into the Secret of secretRef.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new(r"self.matches('^(https?|ssh|file)://\\S+$') || self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9.-]+:\\S+$')")
            .message("must be an https://, http://, ssh:// or file:// URL or git@host:path"),
        validation = Rule::new("!self.matches('^[a-z]+://[^/@]*:[^/@]*@')")
            .message("must not hold a password: put it into a Secret and name that in secretRef")
    )]
    pub url: String,

    /// What of the repository to follow; the repository's default branch where this is left out.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,

    /// The Secret with the repository's credentials, in the same namespace: username and password, bearerToken, or
    /// identity and known_hosts for SSH; ca.crt for a certificate authority of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// Whose signatures a revision must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,

    /// How often the repository is asked for new commits, e.g. 30s, 5m or 1h30m; at least 1s.
    #[serde(default = "default_interval")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub interval: String,

    /// How long reading the repository may take before it counts as failed.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub timeout: String,

    /// How long to wait after a failure that may pass by itself. Left out: from 1s doubling up to the interval, at
    /// least 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub retry_interval: Option<String>,

    /// True stops everything for this repository; what it made stays.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,

    /// Patterns in the syntax of .gitignore, added to those of the repository's own .gitignore files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ignore: Option<String>,

    /// The directories, from the repository's root, in which workshops are looked for; the whole repository where
    /// this is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(
        validation = Rule::new("self.all(path, !path.startsWith('/') && !path.split('/').exists(part, part == '..'))")
            .message("must be relative to the repository's root, without ..")
    )]
    pub paths: Vec<String>,

    /// Whether objects of workshops that the repository no longer has are deleted.
    #[serde(default = "default_true")]
    pub prune: bool,

    /// How many templates one revision may delete, as a number or a percentage; more is refused until the plan is
    /// approved. Default: the greater of 1 and half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')")
            .message("must be a number of at least 0 or a percentage from 0% to 100%")
    )]
    pub prune_budget: Option<IntOrString>,

    /// Auto applies each revision at once. Manual waits until the plan's hash, which the status shows, is put into
    /// the annotation workshop.platform/approve.
    #[serde(default)]
    pub approval: Approval,

    /// What happens to the objects made for this repository when it is deleted itself.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The ServiceAccount of this namespace as which objects are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// How images are made and where they go.
    #[serde(default)]
    pub compile: Compile,

    /// The namespace of the instances that a roster wants; the repository's own where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub target_namespace: Option<String>,
}

/// What of the repository to follow: one of branch, tag, semver and name; or commit, alone or with the branch that
/// holds it.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("(has(self.branch) ? 1 : 0) + (has(self.tag) ? 1 : 0) + (has(self.semver) ? 1 : 0) + (has(self.name) ? 1 : 0) <= 1")
        .message("names more than one of branch, tag, semver and name: keep one"),
    validation = Rule::new("!has(self.commit) || !(has(self.tag) || has(self.semver) || has(self.name))")
        .message("a commit stands alone or with the branch that holds it")
)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// A branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,

    /// A tag; a tag that is moved is followed and flagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,

    /// The highest tag in a range of semantic versions, e.g. 1.x or >=1.2.0 <2.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver: Option<String>,

    /// A reference by its full name, e.g. refs/pull/420/head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self.startsWith('refs/')").message("must begin with refs/"))]
    pub name: Option<String>,

    /// A commit by its full hash; once fetched the repository is not asked any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), regex(pattern = r"^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
}

/// A Secret of the same namespace, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Whose signatures a revision must carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// What is verified: the commit at the head, the tag, or both.
    #[serde(default)]
    pub mode: VerificationMode,
    /// The Secret with the public keys, one file per key.
    pub secret_ref: SecretReference,
}

// Variants carry ordinary comments only: doc comments on them would turn the schema's enum into a list of
// alternatives, which the API server refuses as not structural.

/// What is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum VerificationMode {
    #[default]
    #[serde(rename = "HEAD")]
    Head,
    Tag,
    #[serde(rename = "TagAndHEAD")]
    TagAndHead,
}

/// When a plan goes ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum Approval {
    #[default]
    Auto,
    Manual,
}

/// What happens to the objects made for a repository when it is deleted: Orphan leaves them, Delete removes them,
/// WaitForTermination removes them and stays until they are gone, MirrorPrune does as prune says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum DeletionPolicy {
    #[default]
    Orphan,
    Delete,
    WaitForTermination,
    MirrorPrune,
}

/// How images are made and where they go.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compile {
    /// Job compiles in Kubernetes Jobs, Inline inside the controller. Left out: what the controller can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CompileMode>,

    /// The registry, with an optional prefix, put before image names that name none: registry.example/team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$')")
            .message("must be a host, an optional port and an optional path, without a scheme")
    )]
    pub registry: Option<String>,

    /// The name under which nodes reach that registry, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$')")
            .message("must be a host, an optional port and an optional path, without a scheme")
    )]
    pub pull_registry: Option<String>,

    /// The Secret of type kubernetes.io/dockerconfigjson with the registry's credentials, in the same namespace;
    /// nodes pull with it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// Plain HTTP, or a certificate nobody verified, for that registry and bases on the same host.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure: bool,

    /// Whether the commands of a recipe reach the network.
    #[serde(default = "default_true")]
    pub network: bool,

    /// How long the commands of one step may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("must be at least 1s"))]
    pub timeout: Option<String>,
}

impl Default for Compile {
    fn default() -> Self {
        Self {
            mode: None,
            registry: None,
            pull_registry: None,
            secret_ref: None,
            insecure: false,
            network: true,
            timeout: None,
        }
    }
}

/// Where a compile runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "documented variants would not give a structural schema")]
pub enum CompileMode {
    Inline,
    Job,
}

/// What became of the repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkshopRepositoryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: the followed revision is applied. Reconciling: work is under way or will be tried again. Stalled: it
    /// waits for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The revision tried last, as REF@sha1:HASH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempted_revision: Option<String>,

    /// The last revision of which every workshop was applied, as REF@sha1:HASH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_revision: Option<String>,

    /// The value of the annotation reconcile.workshop.platform/requestedAt that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// The hash of the plan that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_plan: Option<String>,

    /// How many workshops there are and in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,

    /// Workshops that are not ready, at most 50; the whole list is what `workshop get` shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub not_ready: Vec<NotReadyWorkshop>,
}

/// How many workshops the last attempted revision has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All of them.
    pub workshops: i64,
    /// Those that are applied at this revision.
    pub ready: i64,
    /// Those that are not.
    pub failed: i64,
}

/// A workshop that is not at the attempted revision, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotReadyWorkshop {
    /// Its id, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its directory, from the repository's root.
    pub path: String,
    /// One word for the failure.
    pub reason: String,
    /// What is wrong, with PATH:LINE:COLUMN where it has a place.
    #[schemars(length(max = 1024))]
    pub message: String,
}

fn default_interval() -> String {
    "1m".to_owned()
}

fn default_timeout() -> String {
    "60s".to_owned()
}

const fn default_true() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}
