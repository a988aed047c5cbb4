//! `compactor bench` as a program of its own, so that measuring needs nothing but the decoder and the writer.

use clap::Parser;
use firn_compactor::bench::{Command, run};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> anyhow::Result<()> {
    firn_shared::allocator::bound();
    run(Cli::parse().command)
}
