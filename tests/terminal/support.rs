//! What the tests of the terminal share: the program, a server and clients of both protocols.

use std::path::Path;

/// The test program knows no helper mode; the backend does.
pub fn use_the_backend() {
    workshop::backend::exec::use_program(Path::new(env!("CARGO_BIN_EXE_workshop-backend")));
}
