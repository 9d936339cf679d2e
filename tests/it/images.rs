//! Images through a real registry and real layouts, read back by skopeo and umoci; and registries that misbehave.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use workshop::adapters::layout::Layout;
use workshop::adapters::registry::{Credentials, Registries, RegistryError, RegistryOptions};
use workshop::domain::digest::Digest;
use workshop::domain::image::{Image, NewLayer};
use workshop::domain::layer::{Entry, LayerBlob, LayerWriter};
use workshop::domain::reference::BaseImage;
use workshop::pipeline::base::{BaseError, Bases};
use workshop::pipeline::image_end::{BlobPush, BlobSource, ImageEnd, workers};
use workshop::pipeline::image_store::{import_rootfs, list, load};

use crate::support::registry::{Answer, FaultyRegistry, LOGIN, Registry};

fn runtime() -> tokio::runtime::Runtime {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn registries(credentials: Credentials) -> Registries {
    Registries::new(RegistryOptions { credentials, ..RegistryOptions::default() })
}

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: run `hack/deps test` (Debian: {program})"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn layer(files: &[(&str, &[u8])]) -> (Vec<u8>, LayerBlob) {
    let mut writer = LayerWriter::new(Vec::new(), 0, workers());
    for (path, content) in files {
        writer.append(&Entry::file(path, 0o640, content.len() as u64).owned_by(1000, 100), *content).unwrap();
    }
    writer.finish().unwrap()
}

/// Pushes an image of one layer with `files` and gives its digest.
async fn push(end: &ImageEnd, repository: &str, tag: &str, files: &[(&str, &[u8])]) -> (Digest, LayerBlob) {
    let (bytes, blob) = layer(files);
    let image = Image::scratch("amd64").extend(&[NewLayer::written(&blob, "test")], &[], 0).unwrap().encode();
    let source = |bytes: &[u8]| BlobSource::Bytes(bytes.to_vec());
    let blobs = vec![
        BlobPush { digest: blob.digest, source: source(&bytes), mount_from: None },
        BlobPush { digest: image.config_digest, source: source(&image.config), mount_from: None },
    ];
    end.push_blobs(repository, blobs).await.unwrap();
    let digest = end.push_manifest(repository, &[tag.to_owned()], &image.manifest).await.unwrap();
    assert_eq!(digest, image.digest);
    (digest, blob)
}

/// What umoci makes of an image that skopeo copies from `source`.
fn unpack(source: &str, to: &Path) -> std::path::PathBuf {
    let layout = to.join("copy");
    tool("skopeo", &["copy", "--quiet", "--src-tls-verify=false", source, &format!("oci:{}:image", layout.display())]);
    let bundle = to.join("bundle");
    tool(
        "umoci",
        &["unpack", "--rootless", "--image", &format!("{}:image", layout.display()), bundle.to_str().unwrap()],
    );
    bundle.join("rootfs")
}

/// Compiles run as tasks of their own: what they await must be able to move between threads.
#[allow(dead_code, reason = "it only has to compile")]
fn everything_can_be_spawned(bases: Bases, end: ImageEnd, base: BaseImage) {
    drop(tokio::spawn(async move {
        let resolved = bases.resolve(&base, None).await?;
        let _ = bases.path_index(&resolved).await?;
        let _ = push(&end, "docker.io/a", "b", &[]).await;
        bases.push_layers(&resolved, &end, "docker.io/a").await
    }));
}

#[test]
fn a_pushed_image_is_what_other_tools_pull() {
    let registry = Registry::start();
    let repository = format!("{}/team/first-steps", registry.host());
    let end = ImageEnd::Registry(registries(Credentials::anonymous()));
    let work = tempfile::tempdir().unwrap();
    let digest = runtime().block_on(async {
        assert_eq!(end.resolve(&format!("{repository}:one")).await.unwrap(), None);
        let (digest, _) = push(&end, &repository, "one", &[("etc/motd", b"hello\n")]).await;
        assert_eq!(end.resolve(&format!("{repository}:one")).await.unwrap(), Some(digest));
        let (read, manifest) = end.read_manifest(&repository, &digest.to_string()).await.unwrap().unwrap();
        assert_eq!((read, Digest::of(&manifest)), (digest, digest));
        digest
    });
    let shown = tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{repository}:one")]);
    assert!(shown.contains(&digest.to_string()), "{shown}");
    let root = unpack(&format!("docker://{repository}:one"), work.path());
    assert_eq!(std::fs::read(root.join("etc/motd")).unwrap(), b"hello\n");
}

#[test]
fn a_layout_holds_many_references_and_other_tools_read_them() {
    let work = tempfile::tempdir().unwrap();
    let end = ImageEnd::Layout(Layout::new(work.path().join("layout")));
    let names = ["docker.io/team/a", "127.0.0.1:5000/team/b"];
    runtime().block_on(async {
        for name in names {
            push(&end, name, "key-1", &[("name", name.as_bytes())]).await;
        }
        // A name that moves leaves the others where they are.
        push(&end, names[0], "key-1", &[("name", b"moved")]).await;
    });
    let layout = work.path().join("layout");
    for (name, expected) in [(names[0], &b"moved"[..]), (names[1], names[1].as_bytes())] {
        let to = tempfile::tempdir().unwrap();
        let root = unpack(&format!("oci:{}:{name}:key-1", layout.display()), to.path());
        assert_eq!(std::fs::read(root.join("name")).unwrap(), expected);
    }
}

#[test]
fn writers_of_one_layout_lose_nothing() {
    let work = tempfile::tempdir().unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..16 {
            // Each its own value, as processes of their own would have.
            let end = ImageEnd::Layout(Layout::new(work.path()));
            tasks.spawn(async move { push(&end, "docker.io/team/a", &format!("t{index}"), &[("x", b"y")]).await });
        }
        tasks.join_all().await;
    });
    assert_eq!(Layout::open(work.path()).unwrap().list().unwrap().len(), 16);
}

#[test]
fn a_blob_is_uploaded_once_and_mounted_elsewhere() {
    let registry = Registry::start();
    let (one, two) = (format!("{}/one", registry.host()), format!("{}/two", registry.host()));
    let end = ImageEnd::Registry(registries(Credentials::anonymous()));
    runtime().block_on(async {
        let (_, blob) = push(&end, &one, "a", &[("f", b"content")]).await;
        assert!(!end.has_blob(&two, &blob.digest).await.unwrap());
        assert!(end.mount_blob(&two, &blob.digest, &one).await.unwrap());
        // A fresh client asks the registry, not its memory.
        let fresh = ImageEnd::Registry(registries(Credentials::anonymous()));
        assert!(fresh.has_blob(&two, &blob.digest).await.unwrap());
        assert!(!end.mount_blob(&two, &Digest::of(b"nowhere"), &one).await.unwrap());
    });
}

#[test]
fn a_large_blob_goes_out_and_comes_back_as_a_stream() {
    let registry = Registry::start();
    let repository = format!("{}/big", registry.host());
    let end = ImageEnd::Registry(registries(Credentials::anonymous()));
    let work = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..9_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (file, back) = (work.path().join("out"), work.path().join("back"));
    std::fs::write(&file, &bytes).unwrap();
    let digest = Digest::of(&bytes);
    runtime().block_on(async {
        end.push_blob(&repository, &digest, BlobSource::File(file), None).await.unwrap();
        end.fetch_blob(&repository, &digest, bytes.len() as u64, &back).await.unwrap();
        let small = end.fetch_blob(&repository, &digest, 1000, &work.path().join("small")).await.unwrap_err();
        assert!(small.to_string().contains("larger than 1000 bytes"), "{small}");
    });
    assert_eq!(std::fs::read(back).unwrap(), bytes);
    assert!(!work.path().join("small").exists());
}

#[test]
fn a_login_is_used_where_it_is_known_and_asked_for_where_not() {
    let registry = Registry::start_with_login();
    let repository = format!("{}/private", registry.host());
    let secret = format!(
        r#"{{"auths":{{"{}":{{"username":"{}","password":"{}"}}}},"credsStore":"must-not-run"}}"#,
        registry.host(),
        LOGIN.0,
        LOGIN.1
    );
    runtime().block_on(async {
        let known = Credentials::anonymous().with_pull_secret(secret.as_bytes()).unwrap();
        let end = ImageEnd::Registry(registries(known));
        let (digest, _) = push(&end, &repository, "a", &[("f", b"x")]).await;
        assert_eq!(end.resolve(&format!("{repository}:a")).await.unwrap(), Some(digest));
        for credentials in
            [Credentials::anonymous(), Credentials::anonymous().with_password(&registry.host(), LOGIN.0, "wrong")]
        {
            let refused = registries(credentials).resolve(&format!("{repository}:a")).await.unwrap_err();
            assert!(matches!(refused, RegistryError::Unauthorized { .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains(&format!("{repository}:a")) && text.contains("docker login"), "{text}");
        }
    });
}

#[test]
fn a_registrys_refusal_says_what_it_means() {
    let runtime = runtime();
    for (status, headers, tries, expected) in [
        (401, "", 1, "wants a login"),
        (403, "", 1, "does not allow this login to read"),
        (413, "", 1, "body limit"),
        (418, "", 1, "refused to read"),
        (429, "Retry-After: 0\r\n", 5, "limits requests"),
        // Whoever waits is told instead of waiting for an hour.
        (429, "Retry-After: 3600\r\n", 1, "limits requests"),
        (500, "", 5, "failed to read"),
        (503, "", 5, "(503)"),
    ] {
        let registry = FaultyRegistry::start(move |request| {
            if request == "GET /v2/" { Answer::status(200) } else { Answer { status, headers, body: b"no".to_vec() } }
        });
        let reference = format!("{}/team/a:b", registry.host());
        let error = runtime.block_on(registries(Credentials::anonymous()).read_manifest(&reference)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains(&reference), "{text}, not {expected}");
        assert_eq!(registry.seen().len() - 1, tries, "{status}: {:?}", registry.seen());
    }
}

#[test]
fn a_registry_that_recovers_is_not_noticed() {
    let count = AtomicUsize::new(0);
    let body = br#"{"schemaVersion":2,"layers":[]}"#;
    let registry = FaultyRegistry::start(move |request| match (request, count.fetch_add(1, Ordering::SeqCst)) {
        ("GET /v2/", _) => Answer::status(200),
        (_, 1) => Answer { status: 429, headers: "Retry-After: 0\r\n", body: Vec::new() },
        (_, 2) => Answer::status(502),
        _ => Answer { status: 200, headers: "", body: body.to_vec() },
    });
    let reference = format!("{}/a:b", registry.host());
    let found = runtime().block_on(registries(Credentials::anonymous()).read_manifest(&reference)).unwrap().unwrap();
    assert_eq!(found, (Digest::of(body), body.to_vec()));
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    let runtime = runtime();
    let asked = Digest::of(b"the true one");
    for (body, expected) in [(b"{}".to_vec(), "its digest is"), (vec![b' '; 5 << 20], "larger than")] {
        let registry = FaultyRegistry::start(move |request| {
            let body = if request == "GET /v2/" { Vec::new() } else { body.clone() };
            Answer { status: 200, headers: "", body }
        });
        let reference = format!("{}/a@{asked}", registry.host());
        let error = runtime.block_on(registries(Credentials::anonymous()).read_manifest(&reference)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let registry = FaultyRegistry::start(|_| Answer { status: 200, headers: "", body: b"something else".to_vec() });
    let error = runtime
        .block_on(registries(Credentials::anonymous()).read_blob(&format!("{}/a", registry.host()), &asked, 100))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Content { .. }), "{error}");
}

#[test]
fn an_unreachable_registry_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reference = format!("127.0.0.1:{port}/a:b");
    let error = runtime().block_on(registries(Credentials::anonymous()).resolve(&reference)).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains(&reference), "{error}");
}

#[test]
fn a_base_is_found_in_the_store_first_and_then_in_its_registry() {
    let registry = Registry::start();
    let state = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
    std::os::unix::fs::symlink("usr/sbin", root.path().join("sbin")).unwrap();
    std::fs::write(root.path().join("usr/sbin/init"), "x").unwrap();
    let name = format!("{}/base/root:1", registry.host());
    let base = BaseImage::parse(&name).unwrap();
    let registries = registries(Credentials::anonymous());
    let bases = Bases::new(state.path(), registries.clone(), "amd64").with_local_store();
    runtime().block_on(async {
        let missing = bases.resolve(&base, None).await.unwrap_err();
        assert!(matches!(missing, BaseError::NotFound { .. }), "{missing}");
        assert!(missing.to_string().contains(&name), "{missing}");

        let stored = import_rootfs(state.path(), root.path(), &name, "amd64").unwrap();
        let local = bases.resolve(&base, None).await.unwrap();
        assert_eq!(local.digest, stored.digest);
        let index = bases.path_index(&local).await.unwrap();
        assert_eq!(index.resolve("/sbin/tini").unwrap().path, "usr/sbin/tini");

        // Once its image is in the registry, a machine without a store builds on the same digest.
        let end = ImageEnd::Registry(registries.clone());
        let repository = format!("{}/base/root", registry.host());
        bases.push_layers(&local, &end, &repository).await.unwrap();
        let encoded = local.image.encode();
        end.push_blob(&repository, &encoded.config_digest, BlobSource::Bytes(encoded.config), None).await.unwrap();
        end.push_manifest(&repository, &["1".to_owned()], &encoded.manifest).await.unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let bases = Bases::new(elsewhere.path(), registries, "amd64");
        let remote = bases.resolve(&base, None).await.unwrap();
        assert_eq!(remote.digest, stored.digest);
        let blobs = elsewhere.path().join("blobs/sha256").join(remote.layers[0].descriptor.digest.hex());
        assert!(!blobs.exists(), "a layer was fetched before anybody asked");
        assert_eq!(bases.path_index(&remote).await.unwrap(), index);
        // Its layers are mounted into another repository of the same registry.
        let other = format!("{}/team/steps", registry.host());
        std::fs::remove_file(&blobs).unwrap();
        bases.push_layers(&remote, &end, &other).await.unwrap();
        assert!(!blobs.exists(), "a layer was fetched though it could be mounted");
        // Recorded, it needs nobody: neither tag nor registry.
        drop(registry);
        assert_eq!(bases.resolve(&base, Some(remote.digest)).await.unwrap().image, remote.image);
        let wrong = bases.resolve(&BaseImage::parse("oci:layout").unwrap(), None).await.unwrap_err();
        assert!(matches!(wrong, BaseError::NoDirectory(_)), "{wrong}");
    });
}

#[test]
fn archives_of_other_tools_are_loaded_and_built_on() {
    let (work, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let layout = work.path().join("layout");
    let name = "docker.io/library/little:1";
    let files: &[(&str, &[u8])] = &[("etc/motd", b"hello\n")];
    let runtime = runtime();
    let (digest, blob) =
        runtime.block_on(push(&ImageEnd::Layout(Layout::new(&layout)), "docker.io/library/little", "1", files));
    let source = format!("oci:{}:{name}", layout.display());
    let (oci, docker) = (work.path().join("oci.tar"), work.path().join("docker.tar"));
    tool("skopeo", &["copy", "--quiet", &source, &format!("oci-archive:{}:{name}", oci.display())]);
    tool("skopeo", &["copy", "--quiet", &source, &format!("docker-archive:{}:{name}", docker.display())]);
    for (file, state) in
        [(&oci, state.path().join("a")), (&docker, state.path().join("b")), (&layout, state.path().join("c"))]
    {
        let loaded = load(&state, file, None).unwrap();
        assert_eq!(loaded[0].name, name);
        assert_eq!(list(&state).unwrap(), loaded);
        let renamed = load(&state, file, Some("other:2")).unwrap();
        assert_eq!(renamed[0].name, "docker.io/library/other:2");
        assert_eq!(renamed[0].digest, loaded[0].digest);
        if *file != docker {
            assert_eq!(loaded[0].digest, digest);
        }
    }
    let bases = Bases::new(state.path(), registries(Credentials::anonymous()), "amd64").with_directory(work.path());
    for base in [format!("oci-archive:oci.tar:{name}"), "docker-archive:docker.tar".to_owned(), "oci:layout".to_owned()]
    {
        let resolved = runtime.block_on(bases.resolve(&BaseImage::parse(&base).unwrap(), None)).unwrap();
        assert_eq!(resolved.layers[0].diff_id, blob.diff_id, "{base}");
        assert_eq!(runtime.block_on(bases.path_index(&resolved)).unwrap().len(), 2, "{base}");
    }
}

#[test]
fn broken_archives_leave_the_store_as_it_was() {
    let (work, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str, content: &[u8]| {
        let path = work.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let tar = |entries: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let wrong_blob = format!("blobs/sha256/{}", "0".repeat(64));
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    for (path, expected) in [
        (file("text", &b"no archive ".repeat(100)), "cannot read"),
        (file("empty.tar", &tar(&[])), "neither an OCI archive nor"),
        (file("other.tar", &tar(&[("readme", b"hi")])), "neither an OCI archive nor"),
        (file("lie.tar", &tar(&[("index.json", index), (&wrong_blob, b"x")])), "has the digest"),
        (file("none.tar", &tar(&[("index.json", index)])), "an image without a name"),
        (file("json.tar", &tar(&[("manifest.json", b"{")])), "cannot read \"manifest.json\""),
        (
            file("lost.tar", &tar(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)])),
            "lacks \"../../etc/passwd\"",
        ),
        (work.path().join("missing.tar"), "cannot read"),
    ] {
        let error = load(state.path(), &path, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}, not {expected}");
        assert_eq!(list(state.path()).unwrap(), []);
    }
    let unpacked = state.path().join("unpacked");
    assert_eq!(std::fs::read_dir(unpacked).unwrap().count(), 0, "what was unpacked stayed");
}
