//! Sources against a real Git server: what a name stands for, what is fetched, which workshops are found, what fails.

mod trees;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use workshop::domain::revision::RefSpec;
use workshop::domain::source::Source;
use workshop::pipeline::source::{Credentials, GitError, Head, Origin, Problem, Snapshot, SourceError};

use crate::support::git::{Fault, GitServer, Repository, Requests, git};

/// A served repository and the state directory of one who follows it.
struct Fixture {
    server: GitServer,
    repository: Repository,
    state: tempfile::TempDir,
}

impl Fixture {
    fn empty() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = GitServer::start();
        let repository = server.create("team");
        Self { server, repository, state: tempfile::tempdir().unwrap() }
    }

    /// Two workshops, and files that ignore rules remove although they are tracked.
    fn with_workshops() -> Self {
        let fixture = Self::empty();
        fixture.repository.write("shell/step-spec.yaml", "version: v1\n");
        fixture.repository.write("shell/files/motd", "hello\n");
        fixture.repository.write("deep/er/net/export/workshop.yaml", "schema: 1\n");
        fixture.repository.write("README.md", "no workshop\n");
        fixture.repository.commit("two workshops");
        fixture.repository.push();
        fixture
    }

    fn open(&self, source: &str, ignore: Option<&str>) -> Origin {
        let source = Source::parse(source).unwrap();
        Origin::open(&source, self.state.path(), Credentials::default(), ignore)
            .unwrap()
            .with_timeout(Duration::from_secs(60))
    }

    fn origin(&self) -> Origin {
        self.open(&self.server.url("team"), None)
    }

    /// How many requests `work` makes.
    async fn count<T>(&self, work: impl Future<Output = T>) -> (Requests, T) {
        let before = self.server.requests();
        let result = work.await;
        let after = self.server.requests();
        (Requests { gets: after.gets - before.gets, posts: after.posts - before.posts }, result)
    }

    fn change(&self, text: &str) -> String {
        self.repository.write("shell/files/motd", text);
        let commit = self.repository.commit("change");
        self.repository.push();
        commit
    }
}

fn branch(name: &str) -> RefSpec {
    RefSpec::Branch(name.to_owned())
}

fn commit_of(head: &Head) -> String {
    head.revision.as_ref().expect("a commit").commit.clone()
}

fn keys(snapshot: &Snapshot) -> Vec<(String, String)> {
    snapshot.units.iter().map(|unit| (unit.path.clone(), unit.key.tree.to_string())).collect()
}

fn git_error(result: Result<Head, SourceError>) -> GitError {
    match result {
        Err(SourceError::Git(error)) => error,
        other => panic!("expected a failure of Git, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_reference_is_resolved_and_read() {
    let fixture = Fixture::with_workshops();
    let first = fixture.repository.head();
    fixture.repository.tag("v1.0.0");
    let second = fixture.change("two\n");
    fixture.repository.tag("v1.1.0");
    fixture.repository.git(&["branch", "feature/x"]);
    let third = fixture.change("three\n");
    fixture.repository.tag("v2.0.0-rc.1");
    fixture.repository.push();

    let origin = fixture.origin();
    for (spec, commit, shown, tag) in [
        (RefSpec::Default, &third, Some("main"), None),
        (branch("feature/x"), &second, Some("feature/x"), None),
        (RefSpec::Tag("v1.0.0".into()), &first, Some("v1.0.0"), Some("v1.0.0")),
        (RefSpec::Semver("1.x".into()), &second, Some("v1.1.0"), Some("v1.1.0")),
        (RefSpec::Name("refs/heads/main".into()), &third, Some("main"), None),
        (RefSpec::Name("v1.0.0".into()), &first, Some("v1.0.0"), Some("v1.0.0")),
        (RefSpec::Name("feature/x".into()), &second, Some("feature/x"), None),
        (RefSpec::Commit(first.clone()), &first, None, None),
    ] {
        let head = origin.resolve(&spec).await.unwrap();
        let revision = head.revision.clone().unwrap();
        assert_eq!(
            (&revision.commit, revision.name.as_deref(), revision.tag.as_deref()),
            (commit, shown, tag),
            "{spec}"
        );
        let snapshot = origin.snapshot(&head).await.unwrap();
        assert_eq!(snapshot.units[1].path, "shell", "{spec}");
        assert_eq!(snapshot.units[1].key.tag.as_deref(), tag, "{spec}");
        let id = fixture.repository.git(&["rev-parse", &format!("{commit}:shell")]);
        assert_eq!(snapshot.units[1].key.tree.to_string(), id, "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_fetched_by_its_id_without_any_branch() {
    let fixture = Fixture::with_workshops();
    let first = fixture.repository.head();
    fixture.change("two\n");
    let origin = fixture.origin();
    let head = origin.resolve(&RefSpec::Commit(first)).await.unwrap();
    assert_eq!(origin.snapshot(&head).await.unwrap().units.len(), 2);
    let (again, _) = fixture.count(origin.snapshot(&head)).await;
    assert_eq!(again, Requests::default(), "what is in the mirror is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_head_costs_one_listing_and_nothing_else() {
    let fixture = Fixture::with_workshops();
    for number in 0..20 {
        fixture.repository.git(&["branch", &format!("other-{number}")]);
    }
    fixture.repository.tag("v1.0.0");
    fixture.repository.push();
    let origin = fixture.origin();
    for spec in [RefSpec::Default, branch("main"), RefSpec::Semver("1.x".into())] {
        let head = origin.resolve(&spec).await.unwrap();
        origin.snapshot(&head).await.unwrap();
        let (requests, again) = fixture.count(origin.resolve(&spec)).await;
        assert_eq!(requests, Requests { gets: 1, posts: 1 }, "{spec}");
        assert_eq!(again.unwrap(), head);
        let (requests, _) = fixture.count(origin.snapshot(&head)).await;
        assert_eq!(requests, Requests::default(), "{spec}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_is_fetched_alone_and_changes_one_key() {
    let fixture = Fixture::with_workshops();
    let origin = fixture.origin();
    let before = origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let packed = mirror_size(fixture.state.path());
    fixture.change("two\n");
    let head = origin.resolve(&branch("main")).await.unwrap();
    let (requests, after) = fixture.count(origin.snapshot(&head)).await;
    let after = after.unwrap();
    assert_eq!(requests, Requests { gets: 1, posts: 2 }, "a listing and one pack");
    let grown = mirror_size(fixture.state.path()) - packed;
    assert!(grown < 4096, "the mirror grew by {grown} bytes for one small commit");
    assert_eq!(keys(&before)[0], keys(&after)[0]);
    assert_ne!(keys(&before)[1], keys(&after)[1]);
    let tree = after.read(&after.units[1]).unwrap();
    assert_eq!(tree.file("files/motd"), Some(b"two\n".as_slice()));
}

fn mirror_size(state: &Path) -> u64 {
    let mut pending = vec![state.join("mirrors")];
    let mut size = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => pending.push(entry.path()),
                false => size += entry.metadata().unwrap().len(),
            }
        }
    }
    size
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_push_to_an_unrelated_root_is_followed() {
    let fixture = Fixture::with_workshops();
    let origin = fixture.origin();
    let head = origin.resolve(&branch("main")).await.unwrap();
    origin.snapshot(&head).await.unwrap();
    fixture.repository.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    fixture.repository.write("other/step-spec.yaml", "version: v1\n");
    let fresh = fixture.repository.commit("unrelated");
    fixture.repository.git(&["branch", "--force", "main", "fresh"]);
    fixture.repository.push();
    let head = origin.resolve(&branch("main")).await.unwrap();
    assert_eq!(commit_of(&head), fresh);
    assert_eq!(origin.snapshot(&head).await.unwrap().units.len(), 3);
    fixture.repository.git(&["rev-parse", "HEAD"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_branch_is_missing_and_forgotten_by_the_mirror() {
    let fixture = Fixture::with_workshops();
    fixture.repository.git(&["branch", "gone"]);
    fixture.repository.push();
    let origin = fixture.origin();
    origin.snapshot(&origin.resolve(&branch("gone")).await.unwrap()).await.unwrap();
    let mirror = mirror_directory(fixture.state.path());
    assert!(git(&mirror, &["for-each-ref"]).contains("refs/heads/gone"));
    fixture.repository.git(&["push", "--quiet", "origin", ":gone"]);
    let error = git_error(origin.resolve(&branch("gone")).await);
    assert_eq!(error.problem, Problem::MissingRef("branch \"gone\"".into()));
    assert!(!git(&mirror, &["for-each-ref"]).contains("refs/heads/gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_below_the_name_of_a_deleted_one_is_followed() {
    let fixture = Fixture::with_workshops();
    let origin = fixture.origin();
    for (name, gone) in [("topic", None), ("topic/one", Some(":topic")), ("topic", Some(":topic/one"))] {
        if let Some(gone) = gone {
            fixture.repository.git(&["push", "--quiet", "origin", gone]);
        }
        fixture.change(name);
        let commit = fixture.change(&format!("{name} after {gone:?}"));
        fixture.repository.git(&["push", "--quiet", "origin", &format!("HEAD:refs/heads/{name}")]);
        let head = origin.resolve(&branch(name)).await.unwrap();
        assert_eq!(origin.snapshot(&head).await.unwrap().revision.unwrap().commit, commit);
    }
}

fn mirror_directory(state: &Path) -> PathBuf {
    let directories = std::fs::read_dir(state.join("mirrors")).unwrap().flatten().map(|entry| entry.path());
    directories.filter(|path| path.is_dir()).min().expect("a mirror")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_followed_and_reported() {
    let fixture = Fixture::with_workshops();
    fixture.repository.tag("v1.0.0");
    fixture.repository.push();
    let first = fixture.repository.head();
    let origin = fixture.origin();
    let spec = RefSpec::Tag("v1.0.0".into());
    let head = origin.resolve(&spec).await.unwrap();
    assert_eq!(head.moved_from, None);
    origin.snapshot(&head).await.unwrap();
    let second = fixture.change("two\n");
    fixture.repository.tag("v1.0.0");
    fixture.repository.push();
    let head = origin.resolve(&spec).await.unwrap();
    assert_eq!((commit_of(&head), head.moved_from.clone()), (second, Some(first)));
    origin.snapshot(&head).await.unwrap();
    assert_eq!(origin.resolve(&spec).await.unwrap().moved_from, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_version_is_followed_and_a_deleted_one_left() {
    let fixture = Fixture::with_workshops();
    fixture.repository.tag("v1.0.0");
    fixture.repository.push();
    let origin = fixture.origin();
    let spec = RefSpec::Semver("1.x".into());
    let tag = |head: Head| head.revision.unwrap().tag.unwrap();
    assert_eq!(tag(origin.resolve(&spec).await.unwrap()), "v1.0.0");
    fixture.change("two\n");
    fixture.repository.tag("v1.1.0");
    fixture.repository.push();
    let head = origin.resolve(&spec).await.unwrap();
    origin.snapshot(&head).await.unwrap();
    assert_eq!(tag(head), "v1.1.0");
    fixture.repository.git(&["push", "--quiet", "origin", ":refs/tags/v1.1.0"]);
    assert_eq!(tag(origin.resolve(&spec).await.unwrap()), "v1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_many_packs_is_made_anew() {
    let fixture = Fixture::with_workshops();
    let origin = fixture.origin();
    let packs = || {
        let packs = mirror_directory(fixture.state.path()).join("objects/pack");
        std::fs::read_dir(packs)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "pack"))
            .count()
    };
    origin.snapshot(&origin.resolve(&branch("main")).await.unwrap()).await.unwrap();
    let pack = mirror_directory(fixture.state.path()).join("objects/pack");
    for number in 0..50 {
        std::fs::write(pack.join(format!("pack-{number:040}.pack")), "").unwrap();
    }
    let commit = fixture.change("two\n");
    let head = origin.resolve(&branch("main")).await.unwrap();
    let snapshot = origin.snapshot(&head).await.unwrap();
    assert_eq!(snapshot.revision.unwrap().commit, commit);
    assert_eq!(packs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_mirror_is_made_anew() {
    let fixture = Fixture::with_workshops();
    let head = fixture.origin().resolve(&branch("main")).await.unwrap();
    fixture.origin().snapshot(&head).await.unwrap();
    std::fs::remove_file(mirror_directory(fixture.state.path()).join("HEAD")).unwrap();
    assert_eq!(fixture.origin().snapshot(&head).await.unwrap().units.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_told_apart_and_names_the_repository() {
    let fixture = Fixture::with_workshops();
    let login = Fault::Login { user: "me".into(), password: "pass-word".into() };
    for (fault, problem, retry) in [
        (Fault::Status(401), Problem::Unauthenticated, true),
        (login, Problem::Unauthenticated, true),
        (Fault::Status(403), Problem::Forbidden, true),
        (Fault::Status(404), Problem::NotFound, true),
        (Fault::Status(429), Problem::TooManyRequests, true),
        (Fault::Status(500), Problem::Failed("list the references of the server"), true),
    ] {
        fixture.server.set_fault(Some(fault.clone()));
        let error = git_error(fixture.origin().resolve(&branch("main")).await);
        assert_eq!((&error.problem, error.is_retryable()), (&problem, retry), "{fault:?}");
        assert!(error.to_string().contains(&fixture.server.url("team")), "{error}");
    }
    fixture.server.set_fault(None);
    let origin = fixture.origin();
    let problem = async |spec| git_error(origin.resolve(&spec).await).problem;
    assert_eq!(problem(branch("none")).await, Problem::MissingRef("branch \"none\"".into()));
    assert_eq!(problem(RefSpec::Tag("none".into())).await, Problem::MissingRef("tag \"none\"".into()));
    assert_eq!(problem(RefSpec::Semver("9.x".into())).await, Problem::NoVersion("9.x".into()));
    let unknown = origin.resolve(&RefSpec::Commit("ab".repeat(20))).await.unwrap();
    match origin.snapshot(&unknown).await {
        Err(SourceError::Git(error)) => assert_eq!(error.problem, Problem::MissingCommit("ab".repeat(20)), "{error:?}"),
        other => panic!("expected a missing commit, got {other:?}"),
    }
    let elsewhere = fixture.open(&fixture.server.url("nobody"), None);
    assert_eq!(git_error(elsewhere.resolve(&branch("main")).await).problem, Problem::NotFound);
    let closed = fixture.open("http://127.0.0.1:1/team.git", None);
    let error = git_error(closed.resolve(&branch("main")).await);
    assert_eq!(error.problem, Problem::Unreachable, "{error:?}");
    let nowhere = fixture.open("file:///nowhere/at/all", None);
    let error = git_error(nowhere.resolve(&branch("main")).await);
    assert_eq!(error.problem, Problem::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_told_apart() {
    let fixture = Fixture::empty();
    assert_eq!(git_error(fixture.origin().resolve(&RefSpec::Default).await).problem, Problem::Empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_in_time() {
    let fixture = Fixture::with_workshops();
    fixture.server.set_fault(Some(Fault::Hang));
    let origin = fixture.origin().with_timeout(Duration::from_secs(1));
    let start = Instant::now();
    let error = git_error(origin.resolve(&branch("main")).await);
    assert!(matches!(error.problem, Problem::Timeout(1) | Problem::Failed(_)), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(60), "it took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_a_private_repository_and_are_never_shown() {
    let fixture = Fixture::with_workshops();
    fixture.server.set_fault(Some(Fault::Login { user: "me".into(), password: "pass-word".into() }));
    let with_login = |login: &str| fixture.server.url("team").replace("http://", &format!("http://{login}@"));
    let origin = fixture.open(&with_login("me:pass-word"), None);
    let (requests, head) = fixture.count(origin.resolve(&branch("main"))).await;
    assert_eq!(origin.snapshot(&head.unwrap()).await.unwrap().units.len(), 2);
    assert_eq!(requests, Requests { gets: 1, posts: 1 }, "credentials are sent without being asked for");
    let wrong = fixture.open(&with_login("me:wrong-word"), None);
    let error = git_error(wrong.resolve(&branch("main")).await);
    assert_eq!(error.problem, Problem::Unauthenticated);
    assert!(!format!("{error} {error:?} {wrong:?}").contains("wrong-word"), "{error:?}");
    let secret = Credentials { username: Some("me".into()), password: Some("pass-word".into()), ..Default::default() };
    let source = Source::parse(&fixture.server.url("team")).unwrap();
    let origin = Origin::open(&source, fixture.state.path(), secret, None).unwrap();
    origin.resolve(&branch("main")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_that_cannot_be_followed_are_refused_clearly() {
    let fixture = Fixture::with_workshops();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    git(directory.path(), &["init", "--quiet", "--object-format=sha256", "--initial-branch=main", "sha256"]);
    git(Path::new(&path("sha256")), &["commit", "--quiet", "--allow-empty", "--message", "x"]);
    let origin = fixture.open(&format!("file://{}", path("sha256")), None);
    let error = git_error(origin.resolve(&RefSpec::Default).await);
    assert_eq!(error.problem, Problem::Sha256, "{error:?}");
    assert!(!error.is_retryable());

    fixture.change("two\n");
    let bare = format!("file://{}", fixture.repository.bare().display());
    git(directory.path(), &["clone", "--quiet", "--depth=1", &bare, "shallow"]);
    let origin = fixture.open(&format!("file://{}", path("shallow")), None);
    let head = origin.resolve(&RefSpec::Default).await.unwrap();
    match origin.snapshot(&head).await {
        Err(SourceError::Git(error)) => assert_eq!(error.problem, Problem::Shallow, "{error:?}"),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
