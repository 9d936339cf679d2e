//! Opens the workspace after the program listens: artifact, account, shell, and then the session beside them.
//!
//! What fails is said by the readiness probe and tried again.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use serde_json::json;

use crate::domain::digest::Digest;
use crate::domain::workspace::{TerminalServer, User};

use super::app::{App, Machine};
use super::checks::CommandUser;
use super::exec::Identity;
use super::files::FilesClient;
use super::keys::{self, KeyError};
use super::learner::{self, Program};
use super::management::{Management, ManagementError};
use super::own_cluster::OwnCluster;
use super::session::{self, BackOff};
use super::store::{self, Source, Store, StoreError, Workshop};
use super::terminal::{Exit, ImageTtyd, Shell, Terminal, TerminalError};
use super::{NO_SHELL_MODE, chain, exec};

/// The longest token file, in bytes.
const MAX_TOKEN: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("failed to read the workspace's own token from \"{path}\"")]
    Token { path: String, source: std::io::Error },
    #[error("the workshop wants the image's own ttyd (access.webTerminal.server), but the image has none")]
    NoTtyd,
    #[error("failed to make \"{path}\" for the socket of the image's ttyd")]
    Ttyd { path: String, source: std::io::Error },
    #[error("WORKSHOP_VERIFY_KEY has to be set beside WORKSHOP_MANAGEMENT_URL: nobody could be let in otherwise")]
    NoKey,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Management(#[from] ManagementError),
    #[error("the artifact that was fetched is {found}, not {expected}")]
    Digest { found: Digest, expected: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    #[error("failed to hand the learner's cluster over")]
    OwnCluster(#[source] std::io::Error),
}

/// Opens everything, trying again until it works, and then keeps in step with the management API.
pub async fn run(app: Arc<App>) {
    let mut back_off = BackOff::default();
    loop {
        match open(&app).await {
            Ok(()) => break,
            Err(error) => {
                let failure = chain(&error);
                if app.failure().as_ref() != Some(&failure) {
                    tracing::error!(error = %failure, "the workspace cannot be opened");
                    app.set_failure(Some(failure));
                }
                back_off.wait().await;
            }
        }
    }
    app.set_failure(None);
    tracing::info!(step = app.with(|live| live.step.clone()), "ready");
    session::run(app).await;
}

async fn open(app: &Arc<App>) -> Result<(), StartError> {
    if let (Some(address), None) = (&app.config.management, app.management.get()) {
        let path = app.config.path("/workshop/secret/token");
        let token = std::fs::read_to_string(&path).and_then(|token| match token.trim() {
            token if token.is_empty() || token.len() > MAX_TOKEN => Err(std::io::ErrorKind::InvalidData.into()),
            token => Ok(token.to_owned()),
        });
        let token = token.map_err(|source| StartError::Token { path: path.display().to_string(), source })?;
        if app.config.verify_key.is_none() {
            return Err(StartError::NoKey);
        }
        let _ = app.management.set(Management::new(address.clone(), &app.config.instance, token));
    }
    if app.with(|_| ()).is_none() {
        let (store, workshop) = open_store(app).await?;
        app.open(store, workshop)?;
    }
    if app.verify_key.get().is_none() {
        let _ = app.verify_key.set(keys::verify_key(&app.config)?);
    }
    if app.machine.get().is_none() {
        let _ = app.machine.set(start_machine(app)?);
    }
    Ok(())
}

async fn open_store(app: &App) -> Result<(Store, Workshop), StartError> {
    let (state, instance) = (app.config.state(), &app.config.instance);
    let opened = store::open(&state, &app.config.path("/workshop/artifact"), instance);
    let (Err(StoreError::Absent(_)), Some(management)) = (&opened, app.management.get()) else { return Ok(opened?) };
    let session = management.begin().await?;
    let expected = session.instance.artifact.digest;
    let bytes = management.fetch_artifact(&expected).await?;
    let found = Digest::of(&bytes);
    if found.to_string() != expected {
        return Err(StartError::Digest { found, expected });
    }
    Ok(store::install(&state, &Source::Bytes(&bytes), instance, None)?)
}

fn start_machine(app: &Arc<App>) -> Result<Machine, StartError> {
    let (root, settings) = (&app.config.root, &app.config.settings);
    let account = learner::prepare(root, settings.isolation.user);
    let home = app.config.path(&account.home.to_string_lossy());
    let chosen = settings.access.web_terminal.shell.as_deref();
    if let Some(chosen) = chosen
        && !app.config.path(chosen).exists()
    {
        tracing::warn!(shell = chosen, "the image has no such shell");
    }
    let program = learner::login_shell(root, chosen, Some(&account));
    let shell = program.as_ref().map(|program| program.path.clone());
    let mut environment = learner::environment(&account, &home, shell.as_deref(), std::env::vars_os());
    if let Some(cluster) = OwnCluster::find(&app.config, &account.identity) {
        cluster.hand_over().map_err(StartError::OwnCluster)?;
        environment.retain(|(name, _)| name != "KUBECONFIG");
        environment.push(("KUBECONFIG".into(), cluster.kubeconfig().into()));
        tokio::spawn(cluster.follow());
    }
    let login_environment = environment.clone();
    let terminal = if settings.access.web_terminal.enabled {
        // The program itself says so in the terminal where the image has none.
        let Program { path, arguments } = program
            .unwrap_or_else(|| Program { path: exec::program().to_owned(), arguments: vec![NO_SHELL_MODE.into()] });
        let shell = Shell { program: path, arguments, user: account.identity.clone(), home: home.clone(), environment };
        let used = Arc::downgrade(app);
        let ended = Arc::downgrade(app);
        let activity = move || {
            if let Some(app) = used.upgrade() {
                app.touch();
            }
        };
        let on_exit = move |exit: Exit| {
            if let Some(app) = ended.upgrade() {
                app.events.send("terminal", &json!({ "exit": exit }));
            }
        };
        let (activity, on_exit) = (Arc::new(activity), Arc::new(on_exit));
        Some(match settings.access.web_terminal.server {
            TerminalServer::Builtin => Terminal::start(shell, activity, on_exit)?,
            TerminalServer::Ttyd => {
                let ttyd = image_ttyd(app, &shell.user)?;
                Terminal::start_ttyd(shell, ttyd, activity, on_exit)?
            }
        })
    } else {
        None
    };
    let command_user = (settings.isolation.user == User::Learner)
        .then(|| CommandUser { identity: account.identity.clone(), environment: login_environment });
    let files = FilesClient::new(account.identity.clone());
    let environment = environment_of_image();
    Ok(Machine { home, files, terminal, environment, command_user })
}

/// The image's ttyd, with a directory for its socket that the learner alone may enter.
fn image_ttyd(app: &App, user: &Identity) -> Result<ImageTtyd, StartError> {
    let programs = ["/usr/local/bin/ttyd", "/usr/bin/ttyd", "/bin/ttyd"];
    let program = programs.into_iter().find(|path| app.config.path(path).is_file()).ok_or(StartError::NoTtyd)?;
    let directory = app.config.path("/workshop/ttyd");
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .and_then(|()| std::os::unix::fs::chown(&directory, Some(user.uid), Some(user.gid)));
    made.map_err(|source| StartError::Ttyd { path: directory.display().to_string(), source })?;
    Ok(ImageTtyd { program: program.into(), directory })
}

/// What the image sets, for the commands of checks that run as the backend does.
fn environment_of_image() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    std::env::vars_os().filter(|(name, _)| learner::is_of_image(name)).collect()
}
