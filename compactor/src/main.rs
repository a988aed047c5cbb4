//! The command line; see [`firn_compactor::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    firn_shared::allocator::bound();
    firn_compactor::cli::main()
}
