//! The compactor, with the functions of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    firn_shared::allocator::bound();
    firn_compactor::cli::main_with(&acme_functions::FUNCTIONS)
}
