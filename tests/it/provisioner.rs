//! The real helm with a chart of the test's own, in the place of vcluster's.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use workshop::adapters::provisioner::{Chart, Provisioner, Release};

use crate::support::chart::{path_with_helm, write_chart};
use crate::support::cluster::cluster;

async fn render(chart: &Path, values: serde_json::Value) -> Result<Vec<serde_json::Value>, String> {
    let chart = Chart::read(chart.to_str().unwrap(), None, None).unwrap();
    let provisioner = Provisioner::find(chart, &path_with_helm()).unwrap();
    let release = Release { name: "cluster", namespace: "ws-ada-lab", values: &values, kubernetes: Some("v1.36.3") };
    provisioner.render(&release).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        format!("{error}{}", source.unwrap_or_default())
    })
}

#[tokio::test]
async fn a_chart_is_rendered_with_values_for_the_workspaces_namespace() {
    let chart = tempfile::tempdir().unwrap();
    write_chart(
        chart.path(),
        &[
            ("set.yaml", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: {{ .Release.Name }}}\n"),
            (
                "map.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}, namespace: {{ .Release.Namespace }}}\n\
             data: {version: {{ .Values.version | quote }}, minor: {{ .Capabilities.KubeVersion.Minor | quote }}}\n",
            ),
            // Neither is for an installation.
            (
                "hook.yaml",
                "apiVersion: batch/v1\nkind: Job\nmetadata: {name: hook, annotations: {helm.sh/hook: pre-install}}\n",
            ),
            ("test.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: test, annotations: {helm.sh/hook: test}}\n"),
        ],
    );
    let objects = render(chart.path(), json!({ "version": "1.34" })).await.unwrap();
    let shown: Vec<_> = objects.iter().map(|object| (&object["kind"], &object["metadata"]["namespace"])).collect();
    assert_eq!(shown, [(&json!("ConfigMap"), &json!("ws-ada-lab")), (&json!("StatefulSet"), &json!("ws-ada-lab"))]);
    assert_eq!(objects[0]["metadata"]["name"], "cluster");
    assert_eq!(objects[0]["data"], json!({ "version": "1.34", "minor": "36" }));
}

#[tokio::test]
async fn what_helm_says_is_told_and_what_reaches_further_is_refused() {
    let broken = tempfile::tempdir().unwrap();
    write_chart(broken.path(), &[("broken.yaml", "{{ fail \"the values are wrong\" }}")]);
    let said = render(broken.path(), json!({})).await.unwrap_err();
    assert!(said.contains("failed to render the chart") && said.contains("the values are wrong"), "{said}");
    let greedy = tempfile::tempdir().unwrap();
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: everything}\n";
    write_chart(greedy.path(), &[("role.yaml", role)]);
    let said = render(greedy.path(), json!({})).await.unwrap_err();
    assert!(said.contains("cannot be used: ClusterRole \"everything\""), "{said}");
    let said = render(Path::new("/nonexistent/chart"), json!({})).await.unwrap_err();
    assert!(said.contains("failed to render the chart"), "{said}");
}

#[test]
fn a_controller_that_cannot_use_its_chart_does_not_start() {
    let check = |arguments: &[&str], path: &str, expected: &str| {
        let said = Command::new(env!("CARGO_BIN_EXE_workshop"))
            .args(["controller", "--kubeconfig", cluster().controller().to_str().unwrap()])
            .args(arguments)
            .env("PATH", path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(2) && text.contains(expected), "{arguments:?}: {text}");
    };
    let helm = path_with_helm().into_string().unwrap();
    check(&["--vcluster-chart", "chart"], "/nonexistent", "\"helm\" was not found in PATH");
    check(&["--vcluster-chart=--post-renderer=/bin/sh"], &helm, "is no chart");
    check(&["--vcluster-chart", "chart", "--vcluster-values", "/nonexistent/values.yaml"], &helm, "No such file");
    check(&["--vcluster-version", "0.30.0"], &helm, "--vcluster-chart");
    check(&["--vcluster-chart", "oci://registry.example.org/charts/vcluster"], &helm, "--vcluster-version");
}
