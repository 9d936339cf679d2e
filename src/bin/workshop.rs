//! The `workshop` program: set the process up, parse, run, exit code. Nothing else.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    keep_memory_small();
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

/// Makes glibc give memory back: by default each thread gets an arena that keeps what it once had, and a controller
/// of 1,000 workshops then held eight times what it used.
fn keep_memory_small() {
    /// Free memory at the top of the heap beyond this many bytes goes back to the system.
    #[cfg(target_env = "gnu")]
    const KEPT: libc::c_int = 128 << 10;
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "mallopt only sets numbers, and no other thread runs yet")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
