//! What one workspace's token or cookie opens of another's, and what a page from elsewhere may do: nothing.

use reqwest::Method;
use serde_json::json;

use super::{WORKSHOP, create, enter, machine, running};
use crate::support::learner::Learner;

#[test]
fn nothing_of_a_workspace_opens_without_its_own_token() {
    let local = machine();
    let mut ada = running(&local, "ada");
    create(&local, "bob");
    local.wait_for("bob", "Running", "look-around");
    let mut bob = enter(&local, "bob");
    let token_of_bob = bob.cookies()["workshop_token"].clone();
    let token_of_ada = ada.cookies()["workshop_token"].clone();
    assert_ne!(token_of_ada, token_of_bob);

    for path in ["state", "steps", "progress", "files?path=/", "files/content?path=/etc/hostname", "events", "metrics"]
    {
        let address = format!("/w/bob/api/v1/{path}");
        // Nobody; Ada's cookie; Ada's token in the header; one that says of itself that it is unsigned.
        let mut stranger = Learner::stranger(&local.base());
        assert_eq!(stranger.get(&address).status, 401, "nobody: {path}");
        stranger.cookies().insert("workshop_token".into(), token_of_ada.clone());
        assert!([401, 403].contains(&stranger.get(&address).status), "a neighbour's cookie: {path}");
        stranger.cookies().clear();
        for bearer in [token_of_ada.as_str(), "eyJhbGciOiJub25lIn0.e30.", "nonsense"] {
            let header = format!("Bearer {bearer}");
            let answer = stranger.send(Method::GET, &address, &[("authorization", &header)], None);
            assert!([401, 403].contains(&answer.status), "{bearer}: {path}: {answer:?}");
        }
        // In an address a token is worth nothing, whoever's it is.
        let separator = if path.contains('?') { '&' } else { '?' };
        assert_eq!(stranger.get(&format!("{address}{separator}token={token_of_bob}")).status, 401, "{path}");
    }
    // The owner's list and the control API know no workspace's token.
    let mut stranger = Learner::stranger(&local.base());
    stranger.cookies().insert("workshop_token".into(), token_of_ada);
    for path in ["/", "/control/v1/instances", "/control/v1/workshops"] {
        assert_eq!(stranger.get(path).status, 401, "{path}");
    }
}

#[test]
fn pages_from_elsewhere_change_nothing() {
    let local = machine();
    let mut ada = running(&local, "ada");
    let elsewhere = [("origin", "https://elsewhere.example")];
    for (method, path, body) in [
        (Method::POST, "/w/ada/api/v1/validate", json!({})),
        (Method::POST, "/w/ada/api/v1/navigate", json!({ "action": "reset" })),
        (Method::POST, "/w/ada/gateway/v1/reset", json!({})),
        (Method::POST, "/control/v1/instances", json!({ "template": WORKSHOP })),
        (Method::DELETE, "/control/v1/instances/ada", json!({})),
    ] {
        let answer = ada.send(method.clone(), path, &elsewhere, Some(&body));
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
    }
    // A name of this machine that somebody else's DNS gave it.
    let answer = ada.send(Method::GET, "/", &[("host", "workshops.elsewhere.example")], None);
    assert_eq!(answer.status, 421, "{answer:?}");
}

#[test]
fn a_learner_reads_and_ends_nothing_of_the_backend() {
    let local = machine();
    let mut ada = running(&local, "ada");
    ada.type_line("ada", "ln -s /workshop/secret/token ~/link; echo lin\"\"ked", "linked");
    for path in [
        "/workshop/state/workshop.db",
        "/workshop/secret/token",
        "/workshop/artifact/workshop.db",
        "/workshop/.goss/goss.yaml",
        "/proc/1/environ",
        "/home/learner/../../workshop/secret/token",
        "/home/learner/link",
        "/etc/shadow",
        "../../workshop/secret/token",
    ] {
        let answer = ada.get(&format!("/w/ada/api/v1/files/content?path={path}"));
        assert!([400, 403, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    let tried = "for f in /workshop/state/workshop.db /workshop/secret/token /workshop/artifact/workshop.db \
                 /workshop/.goss/goss.yaml /proc/1/environ; do cat $f >/dev/null 2>&1 && echo rea\"\"d $f; done; kill -9 1 2>/dev/null && echo kil\"\"led; \
                 for p in $(pidof workshop-backend); do kill -9 $p 2>/dev/null && echo kil\"\"led; \
                 cat /proc/$p/environ >/dev/null 2>&1 && echo rea\"\"d-env; done; id -u; echo tri\"\"ed";
    let output = ada.type_line("ada", tried, "tried\r\n");
    assert!(output.contains("1000\r\n"), "{output}");
    for loot in ["read /", "killed", "read-env"] {
        assert!(!output.contains(loot), "{output}");
    }
}
