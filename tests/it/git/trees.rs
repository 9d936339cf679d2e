//! The workshops of a commit, of a working tree and of a plain folder: the same for the same files.

use workshop::domain::revision::RefSpec;
use workshop::domain::tree::TreeEntry;
use workshop::pipeline::source::{ReadError, read_directory};

use super::{Fixture, branch, commit_of, keys};

#[tokio::test(flavor = "multi_thread")]
async fn commit_working_tree_and_plain_folder_give_the_same_workshops() {
    let fixture = Fixture::with_workshops();
    let repository = &fixture.repository;
    repository.write(".gitignore", "*.log\n/build/\n");
    repository.write("shell/.gitignore", "!keep.log\n/tmp\n");
    for path in [
        "shell/keep.log",
        "shell/drop.log",
        "shell/tmp/x",
        "shell/sub/tmp/y",
        "build/step-spec.yaml",
        "deep/er/draft.md",
    ] {
        repository.write(path, "x\n");
    }
    repository.write("shell/run.sh", "#!/bin/sh\n");
    std::os::unix::fs::symlink("files/motd", repository.work_tree().join("shell/link")).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(repository.work_tree().join("shell/run.sh"), executable).unwrap();
    // Tracked although ignored: the rules apply to these too.
    repository.git(&["add", "--all", "--force"]);
    repository.commit("ignored and tracked");
    repository.push();

    let ignore = Some("draft.md\n");
    let origin = fixture.open(&fixture.server.url("team"), ignore);
    let commit = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let tree = fixture.open(repository.work_tree().to_str().unwrap(), ignore);
    let tree = tree.snapshot(&tree.resolve(&RefSpec::Default).await.unwrap()).await.unwrap();
    let plain = tempfile::tempdir().unwrap();
    let archive = plain.path().join("archive.tar");
    repository.git(&["archive", "--output", archive.to_str().unwrap(), "HEAD"]);
    let unpacked = std::process::Command::new("tar").arg("-C").arg(plain.path()).arg("-xf").arg(&archive).status();
    assert!(unpacked.unwrap().success());
    let plain = read_directory(plain.path(), ignore).unwrap();

    assert_eq!(commit.units.iter().map(|unit| unit.path.as_str()).collect::<Vec<_>>(), ["deep/er/net", "shell"]);
    assert_eq!(keys(&commit), keys(&tree));
    assert_eq!(keys(&commit), keys(&plain));
    for ((left, middle), right) in commit.units.iter().zip(&tree.units).zip(&plain.units) {
        let files = commit.read(left).unwrap();
        assert_eq!(files.git_id(), left.key.tree);
        assert_eq!(files, tree.read(middle).unwrap());
        assert_eq!(files, plain.read(right).unwrap());
    }
    let files = commit.read(&commit.units[1]).unwrap();
    let names: Vec<_> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(names, [".gitignore", "files/motd", "keep.log", "link", "run.sh", "step-spec.yaml", "sub/tmp/y"]);
    assert_eq!(files.get("link"), Some(&TreeEntry::Link { target: "files/motd".into() }));
    assert!(matches!(files.get("run.sh"), Some(TreeEntry::File { executable: true, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_repositories_are_followed_like_served_ones() {
    let fixture = Fixture::with_workshops();
    let commit = fixture.repository.head();
    fixture.repository.write("shell/files/motd", "not committed\n");
    let bare = fixture.repository.bare().to_str().unwrap().to_owned();
    let work = fixture.repository.work_tree().to_str().unwrap().to_owned();
    let mut found = Vec::new();
    for source in [bare.clone(), format!("file://{bare}"), format!("file://{work}"), work.clone()] {
        let origin = fixture.open(&source, None);
        let head = origin.resolve(&branch("main")).await.unwrap();
        assert_eq!(commit_of(&head), commit, "{source}");
        found.push(keys(&origin.snapshot(&head).await.unwrap()));
    }
    found.dedup();
    assert_eq!(found.len(), 1);
    let origin = fixture.open(&work, None);
    let head = origin.resolve(&RefSpec::Default).await.unwrap();
    assert_eq!(head.revision, None, "the default of a working tree is its files");
    assert_ne!(keys(&origin.snapshot(&head).await.unwrap()), found[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_cannot_give_is_refused_for_its_workshop_alone() {
    let fixture = Fixture::with_workshops();
    let repository = &fixture.repository;
    repository.write("shell/big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
    repository.git(&["add", "--all"]);
    let head = repository.head();
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},shell/module")]);
    repository.git(&["commit", "--quiet", "--message", "a submodule and a pointer"]);
    repository.push();
    let origin = fixture.origin();
    let snapshot = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let [good, bad] = snapshot.units.as_slice() else { panic!("two workshops: {:?}", snapshot.units) };
    assert!(snapshot.read(good).is_ok());
    match snapshot.read(bad) {
        Err(ReadError::Content { diagnostics, .. }) => {
            let rules: Vec<_> = diagnostics.iter().map(|problem| (problem.rule, problem.file.as_str())).collect();
            assert_eq!(rules, [("lfs-pointer", "shell/big.bin"), ("submodule", "shell/module")]);
        }
        other => panic!("expected diagnostics, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_for_one_commit_does_not_grow_with_the_number_of_workshops() {
    let fixture = Fixture::empty();
    fixture.repository.write(".gitignore", "*.log\n");
    for number in 0..200 {
        fixture.repository.write(&format!("all/w{number}/step-spec.yaml"), &format!("version: v1 # {number}\n"));
        fixture.repository.write(&format!("all/w{number}/files/x"), &format!("{number}\n"));
    }
    fixture.repository.commit("200 workshops");
    fixture.repository.push();
    let origin = fixture.origin();
    let first = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    assert_eq!((first.units.len(), first.directories_read), (200, 2 + 200 * 2));

    fixture.repository.write("all/w7/files/x", "changed\n");
    fixture.repository.commit("one file");
    fixture.repository.push();
    let second = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let changed: Vec<_> =
        second.units.iter().filter(|unit| !first.units.contains(unit)).map(|unit| &unit.path).collect();
    assert_eq!(changed, ["all/w7"]);
    assert_eq!(second.directories_read, 4, "the root, all, all/w7 and all/w7/files");
    assert_eq!(
        fixture.origin().snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap().units,
        second.units
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_file_can_have_are_refused_for_their_workshop_alone() {
    let fixture = Fixture::with_workshops();
    let repository = &fixture.repository;
    let blob = repository.git(&["rev-parse", "HEAD:README.md"]);
    for (directory, name) in [("dots", ".."), ("dotgit", ".GIT"), ("bytes", "\\377")] {
        let make_tree = format!(
            "printf '100644 blob {blob}\\t{name}\\n100644 blob {blob}\\tstep-spec.yaml\\n' | \
             {{ git mktree 2>/dev/null || true; }}"
        );
        let made = std::process::Command::new("sh")
            .current_dir(repository.work_tree())
            .args(["-c", &make_tree])
            .output()
            .unwrap();
        let tree = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        assert_eq!(tree.len(), 40, "{directory}: {}", String::from_utf8_lossy(&made.stderr));
        // `read-tree` would refuse what a hostile server sends, so the root's tree is put together from rows.
        let rows = repository.git(&["ls-tree", "HEAD"]);
        let script = format!("printf '%s\\n040000 tree {tree}\\t{directory}\\n' '{rows}' | git mktree");
        let root = std::process::Command::new("sh").current_dir(repository.work_tree()).args(["-c", &script]).output();
        let root = String::from_utf8(root.unwrap().stdout).unwrap().trim().to_owned();
        let commit = repository.git(&["commit-tree", &root, "-p", "HEAD", "-m", "hostile"]);
        repository.git(&["update-ref", "HEAD", &commit]);
    }
    repository.push();
    let origin = fixture.origin();
    let snapshot = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let outcomes: Vec<_> = snapshot
        .units
        .iter()
        .map(|unit| match snapshot.read(unit) {
            Ok(_) => (unit.path.as_str(), "read"),
            Err(ReadError::Content { diagnostics, .. }) => (unit.path.as_str(), diagnostics[0].rule),
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("bytes", "path-not-utf8"),
            ("deep/er/net", "read"),
            ("dotgit", "path-not-allowed"),
            ("dots", "path-not-allowed"),
            ("shell", "read")
        ]
    );
}
