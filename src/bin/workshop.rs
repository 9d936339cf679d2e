//! The `workshop` program: parse, run, exit code. Nothing else.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // One TLS provider for the whole tree, chosen before anything opens a connection.
    let _ = rustls::crypto::ring::default_provider().install_default();
    workshop::cli::main().await
}
