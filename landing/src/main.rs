//! The command line; see [`firn_landing::cli`].

use std::process::ExitCode;

// librdkafka and zstd allocate in C; what Rust allocates are large buffers that come and go on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    firn_landing::cli::main()
}
