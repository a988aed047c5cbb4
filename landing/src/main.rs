//! The command line; see [`firn_landing::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    firn_shared::allocator::bound();
    firn_landing::cli::main()
}
