//! `workshop workspace` as a script uses it: over the control socket while something listens there, else on the store.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What the program printed: exit code, standard output, standard error.
async fn workspace(state: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_workshop"))
        .args(["--color", "never", "--state"])
        .arg(state)
        .arg("workspace")
        .args(arguments)
        .env("USER", "ada")
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn json_of(state: &Path, arguments: &[&str]) -> Value {
    let (code, out, error) = workspace(state, &[arguments, &["--output", "json"]].concat()).await;
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).unwrap_or_else(|failure| panic!("{failure}: {out}"))
}

#[tokio::test]
async fn verbs_speak_to_the_program_that_runs() {
    let server = Server::start().await;
    let state = server.state.path();
    let socket = control_socket(state).metadata().unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    let (code, out, _) = workspace(state, &["create", "--template", "first"]).await;
    assert_eq!((code, out.as_str()), (0, "first-ada\n"));
    let made = json_of(state, &["create", "--template", "first", "--count", "2", "--prefix", "seat-"]).await;
    let made_names: Vec<_> = made["instances"].as_array().unwrap().iter().map(|view| view["name"].clone()).collect();
    assert_eq!((made_names, &made["pending"]), (vec![json!("seat-1"), json!("seat-2")], &json!(false)));
    let listed = json_of(state, &["list", "--workshop", "first"]).await;
    assert_eq!(listed["instances"].as_array().unwrap().len(), 3);
    assert_eq!(listed["instances"][0]["url"], format!("{}w/first-ada/", server.gateway.url()));
    let (_, table, _) = workspace(state, &["list"]).await;
    let first = table.lines().nth(1).unwrap();
    assert!(table.starts_with("NAME ") && first.starts_with("first-ada  first     ada     one"), "{table}");

    let moved = json_of(state, &["goto", "first-ada", "two"]).await;
    assert_eq!((&moved["instance"]["step"], &moved["pending"]), (&json!("two"), &json!(false)));
    let (code, out, error) = workspace(state, &["open", "first-ada"]).await;
    assert_eq!(code, 0, "{error}");
    let token = out.trim().split_once("/w/first-ada/#token=").expect("a token in the fragment").1;
    let uid = server.workspaces.get("first-ada").await.unwrap().unwrap().uid;
    assert!(server.workspaces.verify_key().unwrap().verify(token, &uid, 0, jiff::Timestamp::now().as_second()).is_ok());
    assert!(!error.contains(token));

    for (arguments, expected) in [
        (&["goto", "first-ada", "nowhere"][..], 1),
        (&["reset", "nobody"], 1),
        (&["delete", "../first-ada"], 1),
        (&["create", "--template", "unknown"], 1),
        (&["create", "--template", "first", "No Name"], 2),
        (&["extend", "first-ada"], 4),
        (&["logs", "first-ada"], 3),
        (&["delete"], 2),
    ] {
        let (code, _, error) = workspace(state, arguments).await;
        assert_eq!(code, expected, "{arguments:?}: {error}");
        assert!(error.starts_with("error: "), "{arguments:?}: {error}");
    }
    assert_eq!(json_of(state, &["delete", "seat-1", "seat-2"]).await["deleted"], json!(["seat-1", "seat-2"]));
    assert_eq!(server.workspaces.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn verbs_write_down_what_is_to_be_done_while_nothing_runs() {
    let state = tempfile::tempdir().unwrap();
    write_template(&Store::open(state.path()).unwrap(), state.path());
    // The socket of a program that was killed is no program.
    drop(std::os::unix::net::UnixListener::bind(control_socket(state.path())).unwrap());
    let (code, out, said) = workspace(state.path(), &["create", "--template", "first"]).await;
    assert_eq!((code, out.as_str()), (0, "first-ada\n"), "{said}");
    assert!(said.contains("carried out when `workshop up` runs"), "{said}");
    let moved = json_of(state.path(), &["goto", "first-ada", "two"]).await;
    assert_eq!((&moved["instance"]["step"], &moved["pending"]), (&json!("two"), &json!(true)));
    assert_eq!(moved["instance"]["url"], Value::Null);
    for verb in ["open", "logs"] {
        let (code, _, said) = workspace(state.path(), &[verb, "first-ada"]).await;
        assert_eq!(code, 3);
        assert!(said.contains("`workshop up` is not running"), "{said}");
    }
    let (code, _, _) = workspace(state.path(), &["goto", "first-ada", "nowhere"]).await;
    assert_eq!(code, 1);
    workspace(state.path(), &["delete", "first-ada"]).await;
    assert_eq!(json_of(state.path(), &["list"]).await, json!({ "instances": [] }));
}
