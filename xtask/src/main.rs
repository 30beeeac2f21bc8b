//! `cargo xtask …`: what people and CI run.

mod demo;
mod docs;
mod fuzz;
mod install;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xshell::Shell;

/// Project tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build vmcraft, make a small real guest, and look inside
    Demo,
    /// Install what the tests measure us by, and run all tests
    Test {
        /// The long suites too
        #[arg(long)]
        all: bool,
        /// Do not install anything: fail if something is missing
        #[arg(long)]
        no_install: bool,
        /// Passed on to the test runner, such as a test's name
        #[arg(last = true)]
        runner: Vec<String>,
    },
    /// Write the reference manual from the call table
    Docs {
        /// Only check that it is current
        #[arg(long)]
        check: bool,
    },
    /// Feed the decoders with damaged and forged input, led by what the input reaches
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The targets, instead of all
        targets: Vec<String>,
    },
    /// Measure the ratios of docs/benchmarks.md
    Bench,
}

fn main() -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(testkit::workspace());
    match Arguments::parse().task {
        Task::Demo => demo::run(&shell),
        Task::Test { all, no_install, runner } => test::run(&shell, all, !no_install, &runner),
        Task::Docs { check } => docs::run(&shell, check),
        Task::Fuzz { seconds, targets } => fuzz::run(&shell, seconds, &targets),
        Task::Bench => test::bench(&shell),
    }
}
