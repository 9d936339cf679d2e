//! The program inside every step image: a helper mode, or start logging, run, exit code. Nothing else.

use std::process::ExitCode;

use workshop::backend::{self, chain};

fn main() -> ExitCode {
    // Before any thread exists: these modes drop privileges, which the kernel does by thread.
    if let Some(code) = backend::run_mode_if_asked() {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => serve(),
        Some("token") => print_address(arguments.next().as_deref()),
        Some(other) => usage(other),
    }
}

// Two threads do for one learner; each more costs memory in every workspace.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn serve() -> ExitCode {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    match backend::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the address is what the mode is for")]
fn print_address(role: Option<&str>) -> ExitCode {
    match backend::owners_address(role) {
        Ok(address) => {
            println!("{address}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a wrong argument is said where it was given")]
fn usage(argument: &str) -> ExitCode {
    eprintln!("error: unknown argument \"{argument}\"\nusage: workshop-backend [token [learner|instructor]]");
    ExitCode::from(2)
}
