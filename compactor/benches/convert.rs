//! `compactor bench` as a program of its own, so that measuring needs nothing but the decoder and the writer.

use clap::Parser;
use firn_compactor::bench::{Command, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> anyhow::Result<()> {
    run(Cli::parse().command)
}
