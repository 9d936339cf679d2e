//! The install bundle against the program that it starts, and against the chart that is made of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::chart::built;
use crate::support::files::run;

/// The arguments that the controller's Deployment gives its container.
fn arguments() -> Vec<String> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/controller.yaml")).unwrap();
    let block = text.split("        args:\n").nth(1).expect("the container has arguments");
    block
        .lines()
        .map(str::trim)
        .take_while(|line| line.starts_with("- ") || line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_program_takes_the_arguments_of_the_bundle() {
    let arguments = arguments();
    assert!(arguments.len() > 5 && arguments[0] == "controller", "{arguments:?}");
    // clap answers `--help` only after it has accepted the words before it.
    let output = Command::new(env!("CARGO_BIN_EXE_workshop")).args(&arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_for_administrators_patches_the_argument_that_it_means() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cluster.md")).unwrap();
    let index = page.split("/containers/0/args/").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let argument = &arguments()[index.parse::<usize>().unwrap()];
    assert!(argument.starts_with("--gateway-url="), "argument {index} is {argument}");
}

/// Objects of a YAML stream by kind and name. The namespace that both ways of installing put them in is left out.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_yaml::from_multiple(text).unwrap();
    let named = documents.into_iter().filter(|object| !object.is_null()).map(|mut object| {
        let name = format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        (name, object)
    });
    named.collect()
}

/// The chart as helm renders it.
fn render(values: &Value) -> BTreeMap<String, Value> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let (chart, file) = (directory.path().join("chart"), directory.path().join("values.json"));
    for _ in ["made", "made anew"] {
        run(Command::new(package.join("hack/chart")).arg(&chart));
    }
    std::fs::write(&file, values.to_string()).unwrap();
    let mut helm = Command::new(built("helm", "helm"));
    helm.args(["template", "workshop", "--namespace", "workshop-system", "--kube-version", "1.36.0", "--include-crds"]);
    objects(&run(helm.arg("--values").arg(file).arg(&chart)))
}

#[test]
fn the_chart_installs_what_the_bundle_does() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let kubectl = built("control", "kubectl");
    let mut bundle = objects(&run(Command::new(kubectl).arg("kustomize").arg(manifests)));
    // The chart's namespace is for whoever installs it to make.
    bundle.remove("Namespace workshop-system").unwrap();
    let chart = render(&json!({}));
    assert_eq!(chart.keys().collect::<Vec<_>>(), bundle.keys().collect::<Vec<_>>());
    // The kinds are copied, and kustomize writes their numbers in its own way.
    for (name, object) in bundle.iter().filter(|(name, _)| !name.starts_with("CustomResourceDefinition ")) {
        assert_eq!(&chart[name], object, "{name}");
    }
    assert!(bundle.len() > 10, "{:?}", bundle.keys());
}

#[test]
fn the_values_of_the_chart_are_in_the_deployment() {
    let values = json!({
        "image": "registry.example.org/a/workshop:1.2@sha256:0", "replicas": 3, "imagePullSecrets": [{ "name": "pull" }],
        "gatewayUrl": "https://workshops.example.org", "arguments": ["--user-namespaces", "--vcluster-version=0.30: x"],
        "resources": { "limits": { "memory": "1Gi" } },
    });
    let deployment = render(&values).remove("Deployment workshop-controller").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(pod["imagePullSecrets"], values["imagePullSecrets"]);
    assert_eq!(container["image"], values["image"]);
    assert_eq!(container["resources"]["limits"], values["resources"]["limits"]);
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&"--gateway-url=https://workshops.example.org".into()), "{arguments:?}");
    assert_eq!(arguments[arguments.len() - 2..], *values["arguments"].as_array().unwrap());
}
