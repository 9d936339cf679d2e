//! The OpenAPI document: it is one, it names what the router has, and answers are as it says.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, BASE, Workspace};
use crate::domain::token::Role;

/// The operation of a path, whose parameters are filled in.
fn operation<'d>(document: &'d Value, method: &Method, path: &str) -> Option<&'d Value> {
    let path = format!("/{}", path.split('?').next().unwrap_or_default());
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let is_open = template.last() == Some(&"{path}");
        (template.len() == path.len() || (is_open && path.len() >= template.len()))
            && template.iter().zip(&path).all(|(part, found)| part == found || part.starts_with('{'))
    };
    let paths = document["paths"].as_object()?;
    // A path that is written out goes before one with parameters.
    let exact = paths.get(&path);
    let found = exact.or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item))?;
    found.get(method.as_str().to_ascii_lowercase())
}

/// Holds an answer against the document, which has to know its status, media type and shape.
pub fn check(document: &Value, method: &Method, path: &str, answer: &Answer) {
    let status = answer.status.as_u16();
    // Pages, and what is not there, are not the API's.
    let Some(operation) = operation(document, method, path) else { return };
    let response = &operation["responses"][status.to_string()];
    let shown = String::from_utf8_lossy(&answer.bytes);
    assert!(response.is_object(), "{method} {path}: status {status} is not documented: {shown}");
    let Some(content) = response["content"].as_object() else {
        assert!(answer.bytes.is_empty(), "{method} {path}: {status} has a body: {shown}");
        return;
    };
    let sent = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = sent.split(';').next().unwrap_or_default();
    let fits =
        |documented: &str| documented == kind || documented.strip_suffix("/*").is_some_and(|it| kind.starts_with(it));
    let Some((_, media)) = content.iter().find(|(documented, _)| fits(documented)) else {
        panic!("{method} {path}: {status} is \"{kind}\", documented are {:?}", content.keys());
    };
    if kind == "application/json" {
        let mut schema = media["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let problems: Vec<String> = validator.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{method} {path}: {status}: {problems:?}: {shown}");
    }
}

#[test]
fn the_document_is_openapi_3_1() {
    let document = serde_json::to_value(super::super::openapi::build(BASE)).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    assert_eq!(document["servers"][0]["url"], "/w/alice");
    // Every reference leads somewhere, and every schema is one.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let mut schema = schema.clone();
        schema["components"] = document["components"].clone();
        jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    for operation in operations {
        let is_public = operation["security"] == json!([{}]);
        let has_401 = operation["responses"]["401"].is_object();
        assert!(is_public || has_401, "{}: without 401", operation["operationId"]);
    }
}

#[tokio::test]
async fn the_document_has_every_route_of_the_router_and_no_other() {
    let workspace = Workspace::start().await;
    workspace.open();
    let authorization = format!("Bearer {}", workspace.token(Role::Learner));
    let mut routed = BTreeSet::new();
    for (path, _) in super::super::table() {
        let filled = path.replace("{*path}", "a").replace("{id}", "a").replace("{key}", "a");
        // A method that no route takes is refused with those that it takes.
        let answer = workspace.send(Method::TRACE, &filled, &[("authorization", &authorization)], "").await;
        assert_eq!(answer.code(), (405, "MethodNotAllowed".into()), "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap().to_owned();
        let methods = allowed.split(',').filter(|method| *method != "HEAD");
        routed.extend(methods.map(|method| format!("{method} /{}", path.replace("{*", "{"))));
    }
    let documented: BTreeSet<String> = workspace.document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
        })
        .collect();
    assert_eq!(documented, routed);
}
