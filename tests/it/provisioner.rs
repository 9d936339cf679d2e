//! The real helm with a chart of the test's own, in the place of vcluster's.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use workshop::adapters::provisioner::{Provisioner, Release};

/// A directory with helm, as `PATH` has it.
fn path_with_helm() -> PathBuf {
    let control_plane = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/control-plane/control-plane");
    let built = Command::new(&control_plane).args(["build", "helm"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let helm = Command::new(&control_plane).args(["which", "helm"]).output().unwrap();
    PathBuf::from(String::from_utf8(helm.stdout).unwrap().trim()).parent().unwrap().to_owned()
}

/// A chart with these templates.
fn chart(templates: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("templates")).unwrap();
    std::fs::write(directory.path().join("Chart.yaml"), "apiVersion: v2\nname: small\nversion: 0.1.0\n").unwrap();
    for (name, text) in templates {
        std::fs::write(directory.path().join("templates").join(name), text).unwrap();
    }
    directory
}

async fn render(chart: &Path, values: serde_json::Value) -> Result<Vec<serde_json::Value>, String> {
    let provisioner = Provisioner::find(chart.to_str().unwrap(), path_with_helm().as_os_str()).unwrap();
    let release = Release { name: "cluster", namespace: "ws-ada-lab", values: &values };
    provisioner.render(&release).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })
}

#[tokio::test]
async fn a_chart_is_rendered_with_values_for_the_workspaces_namespace() {
    let chart = chart(&[
        ("set.yaml", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: {{ .Release.Name }}}\n"),
        (
            "map.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}\n\
             data: {version: {{ .Values.version | quote }}}\n",
        ),
        // Neither is for an installation.
        (
            "hook.yaml",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: hook, annotations: {helm.sh/hook: pre-install}}\n",
        ),
        ("test.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: test, annotations: {helm.sh/hook: test}}\n"),
    ]);
    let objects = render(chart.path(), json!({ "version": "1.34" })).await.unwrap();
    let shown: Vec<_> = objects.iter().map(|object| (&object["kind"], &object["metadata"]["namespace"])).collect();
    assert_eq!(shown, [(&json!("ConfigMap"), &json!("ws-ada-lab")), (&json!("StatefulSet"), &json!("ws-ada-lab"))]);
    assert_eq!((&objects[0]["metadata"]["name"], &objects[0]["data"]["version"]), (&json!("cluster"), &json!("1.34")));
}

#[tokio::test]
async fn what_helm_says_is_told_and_what_reaches_further_is_refused() {
    let broken = chart(&[("broken.yaml", "{{ fail \"the values are wrong\" }}")]);
    let said = render(broken.path(), json!({})).await.unwrap_err();
    assert!(said.contains("failed to render the chart") && said.contains("the values are wrong"), "{said}");
    let greedy = chart(&[(
        "role.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: everything}\n",
    )]);
    let said = render(greedy.path(), json!({})).await.unwrap_err();
    assert!(said.contains("cannot be used: ClusterRole \"everything\""), "{said}");
    let said = render(Path::new("/nonexistent/chart"), json!({})).await.unwrap_err();
    assert!(said.contains("failed to render the chart"), "{said}");
}
