//! The command line; see [`firn_compactor::cli`].

use std::process::ExitCode;

// Columns are large buffers that come and go on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    firn_compactor::cli::main()
}
