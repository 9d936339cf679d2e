//! The program inside every step image: start logging, run, exit code. Nothing else.

use std::error::Error;
use std::process::ExitCode;

// Two threads do for one learner; each more costs memory in every workspace.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
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
