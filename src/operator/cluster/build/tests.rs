//! The objects of a workspace as tables: what each setting changes, and what never changes.

use serde_json::{Value, json};

use super::*;
use crate::domain::workspace::effective;

fn subject() -> Subject {
    Subject { uid: "u-1".into(), namespace: "team".into(), name: "git.Ada".into(), workshop: "git".into() }
}

fn around() -> Surroundings {
    Surroundings {
        management_url: Some("http://10.244.0.1:8081".into()),
        verify_key: "key".into(),
        system: "workshop-system".into(),
        operator: "system:serviceaccount:workshop-system:workshop-controller".into(),
        user_namespaces: false,
        api_servers: vec!["192.0.2.7:6443".parse().unwrap()],
        chart: None,
    }
}

fn start(settings: &Value) -> Start {
    Start {
        step: "one".into(),
        image: "r.io/git:one@sha256:aa".into(),
        fingerprint: "f".into(),
        artifact: format!("sha256:{}", "0123456789abcdef".repeat(4)),
        settings: effective(settings, None).unwrap(),
    }
}

fn deployment(settings: &Value, around: &Surroundings, is_carried: bool, has_pull: bool) -> Value {
    let (subject, start) = (subject(), start(settings));
    let workload =
        Workload { subject: &subject, around, start: &start, attempt: "t", surroundings: "d", is_carried, has_pull };
    build_deployment(&workload)
}

fn pod(settings: Value) -> Value {
    deployment(&settings, &around(), true, false)["spec"]["template"]["spec"].clone()
}

fn part(settings: &Value, part: Part) -> Value {
    let objects = build_surroundings(&subject(), &around(), &start(settings), &Secrets::default());
    let mut found = objects.into_iter().filter(|object| object.part == part);
    let one = found.next().map(|object| object.manifest).unwrap_or_default();
    assert!(found.next().is_none());
    one
}

#[test]
fn the_namespace_says_whose_it_is_and_holds_pods_to_the_baseline() {
    let [namespace, binding] = build_namespace(&subject(), &around());
    let metadata = &namespace.manifest["metadata"];
    assert_eq!(metadata["name"], labels::workspace_namespace("team", "git.Ada"));
    assert_eq!(metadata["labels"]["workshop.platform/instance-uid"], "u-1");
    assert_eq!(metadata["labels"]["workshop.platform/workshop"], "git");
    assert_eq!(metadata["labels"]["app.kubernetes.io/part-of"], "workshop");
    assert_eq!(metadata["labels"]["pod-security.kubernetes.io/enforce"], "baseline");
    assert_eq!(metadata["annotations"]["workshop.platform/instance"], "team/git.Ada");
    assert_eq!(binding.manifest["roleRef"]["name"], MANAGER_ROLE);
    let account = json!([{ "kind": "ServiceAccount", "namespace": "workshop-system", "name": "workshop-controller" }]);
    assert_eq!(binding.manifest["subjects"], account);
    let user = Surroundings { operator: "ann".into(), ..around() };
    let [_, binding] = build_namespace(&subject(), &user);
    assert_eq!(binding.manifest["subjects"][0]["kind"], "User");
}

#[test]
fn every_pod_is_hardened() {
    for settings in [json!({}), json!({"isolation": {"user": "root"}}), json!({"isolation": {"mode": "team"}})] {
        let pod = pod(settings);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["securityContext"]["privileged"], false);
        assert_eq!(container["securityContext"]["runAsUser"], 0);
        for volume in pod["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none());
            for kind in ["configMap", "secret"] {
                assert!(volume.get(kind).is_none_or(|source| source["defaultMode"] == 0o400), "{volume}");
            }
        }
        for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "runtimeClassName", "imagePullSecrets"] {
            assert!(pod.get(field).is_none(), "{field}");
        }
    }
}

#[test]
fn power_is_what_the_settings_say() {
    let security = |settings: Value| pod(settings)["containers"][0]["securityContext"].clone();
    let learner = security(json!({}));
    assert_eq!(learner["allowPrivilegeEscalation"], false);
    let added = json!(["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"]);
    assert_eq!(learner["capabilities"]["add"], added);
    let root = security(json!({"isolation": {"user": "root"}}));
    assert_eq!(root["allowPrivilegeEscalation"], true);
    let added = root["capabilities"]["add"].as_array().unwrap();
    assert!(added.contains(&"SYS_CHROOT".into()) && !added.contains(&"NET_RAW".into()));
    assert_eq!(pod(json!({"isolation": {"runtimeClass": "kata"}}))["runtimeClassName"], "kata");
    let apart = Surroundings { user_namespaces: true, ..around() };
    let pod = deployment(&json!({}), &apart, true, true)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["hostUsers"], false);
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": PULL }]));
}

#[test]
fn the_next_pod_waits_for_the_end_of_one_with_a_volume_only() {
    let grace = |settings| pod(settings)["terminationGracePeriodSeconds"].clone();
    assert_eq!(grace(json!({})), 0);
    assert_eq!(grace(json!({"lifecycle": {"persist": "1Gi"}})), 5);
}

#[test]
fn limits_are_the_settings_and_requests_are_below_them() {
    let settings = json!({"resources": {"cpu": "1", "memory": "1Gi"}, "lifecycle": {"persist": "2Gi"}});
    let resources = pod(settings.clone())["containers"][0]["resources"].clone();
    assert_eq!(resources["limits"], json!({ "cpu": "1", "memory": "1Gi" }));
    assert_eq!(resources["requests"], json!({ "cpu": "100m", "memory": "268435456" }));
    let hard = part(&settings, Part::ResourceQuota)["spec"]["hard"].clone();
    assert_eq!((&hard["limits.cpu"], &hard["limits.memory"]), (&json!("2000m"), &json!("2147483648")));
    // Room for two of each: a creation that was cut off stays charged for a while.
    let storage = (4_u64 << 30).to_string();
    assert_eq!((&hard["persistentvolumeclaims"], &hard["requests.storage"]), (&json!("2"), &json!(storage)));
    assert_eq!(hard["services"], "2");
    let claim = part(&settings, Part::PersistentVolumeClaim);
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
    let mounts = pod(settings)["containers"][0]["volumeMounts"].clone();
    assert!(mounts.as_array().unwrap().iter().any(|mount| mount["mountPath"] == "/persist"));
    assert_eq!(part(&json!({}), Part::PersistentVolumeClaim), Value::Null);
    assert_eq!(part(&json!({}), Part::ServiceAccount)["automountServiceAccountToken"], false);
}

#[test]
fn the_container_contract_is_kept() {
    let made = deployment(&json!({}), &around(), true, false);
    assert_eq!(made["spec"]["strategy"]["type"], "Recreate");
    assert_eq!(made["spec"]["revisionHistoryLimit"], 1);
    let template = &made["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["workshop.platform/fingerprint"], "f");
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["image"], "r.io/git:one@sha256:aa");
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|entry| entry["name"] == name).map(|entry| entry["value"].clone())
    };
    assert_eq!(variable("WORKSHOP_INSTANCE"), Some("u-1".into()));
    assert_eq!(variable("WORKSHOP_BASE_PATH"), Some("/w/team.git.Ada/".into()));
    assert_eq!(variable("WORKSHOP_MANAGEMENT_URL"), Some("http://10.244.0.1:8081".into()));
    let alone = Surroundings { management_url: None, ..around() };
    let text = deployment(&json!({}), &alone, false, false).to_string();
    assert!(!text.contains("WORKSHOP_MANAGEMENT_URL") && !text.contains("artifact-"), "{text}");
    // Kubernetes replaces $(NAME) in values: an author's text stays as it is.
    let shell = json!({"access": {"webTerminal": {"shell": "/bin/$(HOME)"}}});
    assert!(deployment(&shell, &around(), true, false).to_string().contains("/bin/$$(HOME)"));
}

#[test]
fn the_network_denies_what_the_settings_do_not_name() {
    let policy = |settings: Value| part(&settings, Part::NetworkPolicy)["spec"].clone();
    let internet = policy(json!({}));
    assert_eq!((&internet["podSelector"], &internet["policyTypes"]), (&json!({}), &json!(["Ingress", "Egress"])));
    let from = &internet["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(from["kubernetes.io/metadata.name"], "workshop-system");
    let except = internet["egress"][1]["to"][0]["ipBlock"]["except"].as_array().unwrap();
    for range in ["10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"] {
        assert!(except.contains(&range.into()), "{range}");
    }
    let management = json!({
        "to": [{ "ipBlock": { "cidr": "10.244.0.1/32" } }], "ports": [{ "protocol": "TCP", "port": 8081 }],
    });
    assert_eq!(policy(json!({"network": {"egress": []}}))["egress"], json!([management]));
    let rules = policy(json!({"network": {"egress": [{"cidr": "10.1.0.0/16", "ports": [443]}]}}));
    assert_eq!(rules["egress"].as_array().map(Vec::len), Some(2));
    assert_eq!(rules["egress"][0]["to"], json!([{ "ipBlock": { "cidr": "10.1.0.0/16" } }]));
    let named = Surroundings { management_url: Some("http://controller.system.svc:8081".into()), ..around() };
    let egress =
        build_network_policy(&subject(), &named, &start(&json!({"network": {"egress": []}})))["spec"]["egress"].clone();
    let to = &egress[0]["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(to, "workshop-system");
}

#[test]
fn a_step_switch_changes_the_deployment_alone() {
    let digest =
        |start: &Start, around: &Surroundings, has_pull: bool| surroundings_digest(&subject(), around, start, has_pull);
    let one = start(&json!({}));
    let two = Start { step: "two".into(), image: "r.io/git:two".into(), fingerprint: "g".into(), ..one.clone() };
    assert_eq!(digest(&one, &around(), false), digest(&two, &around(), false));
    assert_ne!(digest(&one, &around(), false), digest(&one, &around(), true));
    let wide = start(&json!({"resources": {"memory": "1Gi"}}));
    assert_ne!(digest(&one, &around(), false), digest(&wide, &around(), false));
    let other = Surroundings { verify_key: "other".into(), ..around() };
    assert_ne!(digest(&one, &around(), false), digest(&one, &other, false));
}

#[test]
fn secrets_are_in_secrets_only() {
    let secrets =
        Secrets { token: "tok".into(), pull: Some([(".dockerconfigjson".to_owned(), b"{}".to_vec())].into()) };
    let objects = build_surroundings(&subject(), &around(), &start(&json!({})), &secrets);
    let token = objects.iter().find(|object| object.manifest["metadata"]["name"] == TOKEN.0).unwrap();
    assert_eq!((token.part, &token.manifest["data"]["token"]), (Part::Secret, &json!("dG9r")));
    let pull = objects.iter().find(|object| object.manifest["metadata"]["name"] == PULL).unwrap();
    assert_eq!(pull.manifest["type"], "kubernetes.io/dockerconfigjson");
    for object in objects.iter().filter(|object| object.part != Part::Secret) {
        assert!(!object.manifest.to_string().contains("dG9r"), "{:?}", object.part);
    }
}

#[test]
fn an_artifact_is_carried_where_it_fits() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    assert_eq!(artifact_name(&digest), "artifact-abababababababab");
    let Carried::ConfigMap(map) = build_artifact(&subject(), &digest, &[7; 5 << 20]).unwrap() else {
        panic!("five megabytes of nothing fit")
    };
    assert_eq!((&map["immutable"], &map["metadata"]["name"]), (&json!(true), &json!("artifact-abababababababab")));
    assert!(map["binaryData"]["workshop.db.zst"].is_string());
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(MAX_CARRIED + 1024)
    .collect();
    assert_eq!(build_artifact(&subject(), &digest, &noise).unwrap(), Carried::Fetched);
}

#[test]
fn a_lab_bounds_its_learner_before_it_lets_them_in() {
    let shared = start(&json!({"cluster": {"mode": "shared"}, "network": {"egress": []}}));
    let room = subject().room();
    let objects = build_lab(&subject(), &around(), &shared);
    let parts: Vec<Part> = objects.iter().map(|object| object.part).collect();
    assert_eq!(parts.first(), Some(&Part::Namespace));
    assert_eq!(parts.last(), Some(&Part::RoleBinding));
    assert_eq!(objects[0].manifest["metadata"]["name"], format!("{room}-lab"));
    assert_eq!(objects[0].manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "baseline");
    let binding = &objects.last().unwrap().manifest;
    assert_eq!(binding["roleRef"]["name"], "workshop-learner");
    let account = json!([{ "kind": "ServiceAccount", "namespace": room, "name": NAME }]);
    assert_eq!(binding["subjects"], account);
    assert!(objects.iter().all(|object| object.manifest["metadata"]["labels"][labels::INSTANCE_UID] == subject().uid));

    // The workspace itself gets to its lab and to the API server, and to nothing else that it did not before.
    let ways = |start: &Start| build_network_policy(&subject(), &around(), start)["spec"]["egress"].to_string();
    let none = start(&json!({"network": {"egress": []}}));
    assert!(ways(&shared).contains("192.0.2.7/32") && ways(&shared).contains(&format!("{room}-lab")));
    assert!(!ways(&none).contains("192.0.2.7/32") && !ways(&none).contains("-lab"));
    // Who has a cluster of their own has no business with the one around, and has to find theirs by its name.
    let own = start(&json!({"cluster": {"mode": "per-workspace"}, "network": {"egress": []}}));
    assert!(!ways(&own).contains("192.0.2.7/32") && ways(&own).contains(&format!("{room}-lab")));
    assert!(ways(&own).contains("kube-system") && !ways(&none).contains("kube-system"));
}

#[test]
fn a_cluster_of_ones_own_is_bounded_and_gives_no_rights_in_the_one_around() {
    let own = start(&json!({
        "cluster": {"mode": "per-workspace"}, "resources": {"cpu": "500m", "memory": "512Mi"},
        "lifecycle": {"persist": "1Gi"}, "network": {"egress": []},
    }));
    let objects = build_lab(&subject(), &around(), &own);
    let roles: Vec<&Value> = objects
        .iter()
        .filter(|object| object.part == Part::RoleBinding)
        .map(|object| &object.manifest["roleRef"]["name"])
        .collect();
    assert_eq!(roles, ["workshop-instance-manager", "workshop-cluster-manager"]);
    let accounts = objects.iter().map(|object| object.manifest["subjects"].to_string()).collect::<String>();
    assert!(accounts.contains("workshop-controller") && !accounts.contains(&subject().room()), "{accounts}");
    let spec = |part: Part, name: &str| {
        let named = |object: &&Object| object.part == part && object.manifest["metadata"]["name"] == name;
        objects.iter().find(named).unwrap().manifest["spec"].clone()
    };
    let hard = spec(Part::ResourceQuota, NAME)["hard"].clone();
    let storage = (5_u64 << 30).to_string();
    assert_eq!((&hard["limits.cpu"], &hard["requests.storage"]), (&json!("4000m"), &json!(storage)));
    assert_eq!(hard["limits.memory"], json!((6_u64 << 30).to_string()));
    // Only what runs the cluster gets to the API server around it.
    let policy = spec(Part::NetworkPolicy, "cluster");
    assert_eq!(policy["podSelector"], json!({ "matchLabels": { "release": "cluster" } }));
    assert!(policy.to_string().contains("192.0.2.7/32"));
    assert!(!spec(Part::NetworkPolicy, NAME).to_string().contains("192.0.2.7/32"));

    let pod = pod(json!({"cluster": {"mode": "per-workspace"}}));
    let text = pod.to_string();
    assert!(text.contains("workspace-kubeconfig") && !text.contains("serviceAccountToken"), "{text}");
    assert!(!text.contains("WORKSHOP_LAB_NAMESPACE"), "{text}");
}

#[test]
fn a_chart_is_told_ours_over_the_administrators_over_our_defaults() {
    let administrators = json!({
        "controlPlane": { "advanced": { "defaultImageRegistry": "r.io" }, "proxy": { "extraSANs": ["x"] } },
        "exportKubeConfig": { "server": "https://x", "context": "lab" },
    });
    let host = format!("cluster.{}-lab.svc", subject().room());
    let of = |settings: Value| own_cluster::values(&subject(), &start(&settings), &administrators);
    assert_eq!(
        of(json!({"cluster": {"mode": "per-workspace"}})),
        json!({
            "controlPlane": {
                "advanced": { "defaultImageRegistry": "r.io" },
                "proxy": { "extraSANs": [host] },
                "statefulSet": {
                    "image": { "repository": "loft-sh/vcluster-oss" },
                    "resources": { "limits": { "cpu": "1", "memory": "2Gi" } },
                    "persistence": { "volumeClaim": { "enabled": false } },
                },
            },
            "exportKubeConfig": { "server": format!("https://{host}:443"), "context": "lab" },
        })
    );
    let pinned =
        of(json!({"cluster": {"mode": "per-workspace", "version": "1.34.2"}, "lifecycle": {"persist": "2Gi"}}));
    assert_eq!(pinned["controlPlane"]["distro"]["k8s"]["image"]["tag"], "v1.34.2");
    let claim = &pinned["controlPlane"]["statefulSet"]["persistence"]["volumeClaim"];
    assert_eq!(*claim, json!({ "enabled": true, "size": "2Gi" }));
    // Another chart is another start, and so is another version of Kubernetes.
    let digest = |settings: &Value, chart: Option<&str>| {
        let around = Surroundings { chart: chart.map(str::to_owned), ..around() };
        surroundings_digest(&subject(), &around, &start(settings), false)
    };
    let (own, other) = (
        json!({"cluster": {"mode": "per-workspace"}}),
        json!({"cluster": {"mode": "per-workspace", "version": "1.34.2"}}),
    );
    assert_ne!(digest(&own, Some("a")), digest(&own, Some("b")));
    assert_ne!(digest(&own, Some("a")), digest(&other, Some("a")));
    assert_eq!(digest(&json!({}), Some("a")), digest(&json!({}), Some("b")));
}

#[test]
fn a_kubeconfig_has_to_lead_out_of_the_learners_pod() {
    let check = |text: &str, expected: Option<&str>| {
        let found = own_cluster::problem_of_kubeconfig(text.as_bytes());
        assert_eq!(found.is_some(), expected.is_some(), "{text}: {found:?}");
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{text}");
    };
    let with = |server: &str| format!("clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n");
    check(&with("https://cluster.ws-ada-lab.svc:443"), None);
    check(&with("https://10.0.1.2"), None);
    for own in ["https://localhost:8443", "https://127.0.0.1:8443", "https://[::1]:8443", "https://0.0.0.0"] {
        check(&with(own), Some("exportKubeConfig.server"));
    }
    for other in ["http://10.0.1.2", "", "10.0.1.2:443"] {
        check(&with(other), Some("no https address"));
    }
    check("clusters: []", Some("names no cluster"));
    check("[", Some("no YAML"));
    check(&" ".repeat(300 << 10), Some("larger than 256 KiB"));
    assert!(own_cluster::problem_of_kubeconfig(&[0xff]).is_some());
}
