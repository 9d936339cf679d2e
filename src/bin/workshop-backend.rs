//! The program inside every step image: its helper mode, or start logging, run, exit code. Nothing else.

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread exists: this mode drops privileges, which the kernel does by thread.
    workshop::backend::exec::run_if_asked().unwrap_or_else(serve)
}

// Two threads do for one learner; each more costs memory in every workspace.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn serve() -> ExitCode {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    match workshop::backend::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut source: Option<&dyn Error> = Some(&error);
            let mut message = Vec::new();
            while let Some(error) = source {
                message.push(error.to_string());
                source = error.source();
            }
            tracing::error!("{}", message.join(": "));
            ExitCode::FAILURE
        }
    }
}
