//! The `workshop` program: parse, run, exit code. Nothing else.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    // One TLS provider for the whole tree, chosen before anything opens a connection.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return workshop::cli::no_runtime(&error),
    };
    let code = runtime.block_on(workshop::cli::main());
    // A thread that waits for a silent server must not keep the program from ending.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
