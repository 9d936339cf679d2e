//! Images keep what they inherit, say what they run, and have one form.

use serde_json::json;

use super::*;

fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn layer(seed: &str) -> NewLayer {
    NewLayer {
        descriptor: Descriptor {
            media_type: LAYER_GZIP.to_owned(),
            digest: digest(seed),
            size: 10,
            annotations: BTreeMap::new(),
        },
        diff_id: digest(&format!("{seed}.tar")),
        created_by: format!("make {seed}"),
    }
}

/// An image as old dockers push it, with things in it that nobody here knows.
fn docker_image() -> Result<Image, ImageError> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 7, "digest": digest("c")},
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 5, "digest": digest("base")}
        ],
    });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "20.10",
        "container": "abc",
        "author": "somebody",
        "config": {
            "Env": ["PATH=/bin", "LANG=C"],
            "Cmd": ["sh"],
            "Entrypoint": null,
            "User": "",
            "WorkingDir": "/srv",
            "Volumes": null,
            "Labels": {"a": "b"},
            "Healthcheck": {"Test": ["NONE"]}
        },
        "rootfs": {"type": "layers", "diff_ids": [digest("base.tar")]},
        "history": null,
    });
    Image::parse(manifest.to_string().as_bytes(), config.to_string().as_bytes())
}

#[test]
fn dockers_forms_become_ocis() {
    let image = docker_image().unwrap();
    assert_eq!(image.manifest.media_type, MANIFEST);
    assert_eq!(image.manifest.layers[0].media_type, LAYER_GZIP);
    assert_eq!(image.label("a"), Some("b"));
    let text = String::from_utf8(image.encode().config).unwrap();
    assert!(!text.contains("docker_version") && !text.contains("container\""), "{text}");
    assert!(text.contains(r#""author":"somebody""#), "{text}");
}

#[test]
fn a_step_adds_layers_and_merges_the_environment_by_key() {
    let env = [("LANG".to_owned(), "de_DE.UTF-8".to_owned()), ("STEP".to_owned(), "a=b".to_owned())];
    let image = docker_image().unwrap().extend(&[layer("one"), layer("two")], &env, 86_400 * 365).unwrap();
    assert_eq!(image.config.config.env, ["PATH=/bin", "LANG=de_DE.UTF-8", "STEP=a=b"]);
    assert_eq!(image.env().last(), Some(("STEP", "a=b")));
    assert_eq!(image.manifest.layers.len(), 3);
    assert_eq!(image.config.rootfs.diff_ids[1..], [digest("one.tar"), digest("two.tar")]);
    assert_eq!(image.config.history.iter().filter(|entry| !entry.empty_layer).count(), 3);
    assert_eq!(image.config.created.as_deref(), Some("1971-01-01T00:00:00Z"));
    assert_eq!(image.config.config.cmd, Some(vec!["sh".to_owned()]));
    assert_eq!(image.config.config.working_dir, "/srv");
}

#[test]
fn a_published_image_runs_the_platform_and_nothing_else() {
    let image = docker_image().unwrap();
    let published = image.with_platform(&layer("platform"), Some(&layer("assets")), 0).unwrap();
    let run = &published.config.config;
    assert_eq!(run.entrypoint.as_deref(), Some(&ENTRY.map(str::to_owned)[..]));
    assert_eq!((run.cmd.as_ref(), run.other.get("Healthcheck")), (None, None));
    let digests: Vec<_> = published.manifest.layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(digests, [digest("base"), digest("assets"), digest("platform")]);
    assert_eq!(run.env, image.config.config.env);
}

const ENTRY: [&str; 3] = ["/sbin/tini", "--", "/usr/local/bin/workshop-backend"];

#[test]
fn an_image_has_one_form() {
    let image = Image::scratch("amd64").extend(&[layer("one")], &[], 0).unwrap();
    let encoded = image.encode();
    assert_eq!(
        String::from_utf8(encoded.config.clone()).unwrap(),
        format!(
            r#"{{"architecture":"amd64","config":{{}},"created":"1970-01-01T00:00:00Z","history":[{{"created":"1970-01-01T00:00:00Z","created_by":"make one"}}],"os":"linux","rootfs":{{"diff_ids":["{}"],"type":"layers"}}}}"#,
            digest("one.tar")
        )
    );
    let parsed = Image::parse(&encoded.manifest, &encoded.config).unwrap();
    assert_eq!(parsed.encode(), encoded);
    assert_eq!(encoded.digest, Digest::of(&encoded.manifest));
}

#[test]
fn the_chain_of_layers_has_ocis_identity() {
    let (one, two) = (digest("1"), digest("2"));
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(&[one]), Some(one));
    assert_eq!(chain_id(&[one, two]), Some(Digest::of(format!("{one} {two}").as_bytes())));
}

#[test]
fn the_first_manifest_of_the_platform_is_chosen() {
    let entry = |arch: &str, os: &str, seed: &str| json!({"mediaType": MANIFEST, "size": 1, "digest": digest(seed), "platform": {"architecture": arch, "os": os}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        entry("arm64", "linux", "arm"), entry("amd64", "windows", "win"),
        entry("amd64", "linux", "first"), entry("amd64", "linux", "second"), entry("unknown", "unknown", "sbom"),
    ]})
    .to_string();
    let choose = |architecture: &str| {
        select_platform(index.as_bytes(), architecture).map(|chosen| chosen.digest).map_err(|error| error.to_string())
    };
    assert_eq!(choose("amd64"), Ok(digest("first")));
    assert_eq!(choose("arm64"), Ok(digest("arm")));
    assert_eq!(
        choose("s390x"),
        Err("the image is not available for linux/s390x (it is for linux/arm64, windows/amd64, linux/amd64, \
             linux/amd64)"
            .to_owned())
    );
    assert_eq!(manifest_kind(index.as_bytes()).unwrap(), ManifestKind::Index);
}

#[test]
fn what_is_no_image_is_refused() {
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let layers = |media_type: &str| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": 1, "digest": digest("c")},
            "layers": [{"mediaType": media_type, "size": 1, "digest": digest("l")}]})
        .to_string()
    };
    let with_layer = config.replace("[]", &format!("[\"{}\"]", digest("d")));
    for (manifest, config, expected) in [
        ("{".to_owned(), config, "cannot read the image's manifest"),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), config, "\"schema version 1\", which is no image"),
        (json!({"mediaType": INDEX, "manifests": []}).to_string(), config, "image.index"),
        (layers(LAYER_GZIP), config, "1 layers but its config names 0"),
        (layers("application/x-foreign"), with_layer.as_str(), "\"application/x-foreign\", which cannot be unpacked"),
        (layers(LAYER_GZIP), "[]", "cannot read the image's config"),
    ] {
        let message = Image::parse(manifest.as_bytes(), config.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}, not {expected}");
    }
    let windows =
        Image { config: ImageConfig { os: "windows".into(), ..Image::scratch("amd64").config }, ..Image::scratch("") };
    assert!(windows.check_platform("amd64").is_err());
}

#[test]
fn too_many_layers_are_refused_before_a_runtime_does() {
    let many: Vec<_> = (0..=MAX_LAYERS).map(|index| layer(&index.to_string())).collect();
    let refused = Image::scratch("amd64").extend(&many, &[], 0).unwrap_err();
    assert!(matches!(refused, ImageError::TooManyLayers(121)), "{refused}");
    // A stranger's image is not fetched layer by layer before that is noticed.
    let mut huge = Image::scratch("amd64");
    for layer in &many {
        huge.manifest.layers.push(layer.descriptor.clone());
        huge.config.rootfs.diff_ids.push(layer.diff_id);
    }
    let encoded = huge.encode();
    let parsed = Image::parse(&encoded.manifest, &encoded.config);
    assert!(matches!(parsed, Err(ImageError::TooManyLayers(121))));
}
