//! The `krowoc` binary: the command line and nothing else. What a command does is the engine's, the steps' or the API's business.

mod api_token;
mod bench;
mod commands;
mod config;
mod database;
mod duration;
mod failure;
mod follow;
mod operations;
mod output;
mod progress;
mod remedy;
mod run_document;
mod run_input;
mod short_id;
mod signals;
mod table;
mod telemetry;
mod tree;
mod watch;
mod workflow_files;

use clap::Parser;
use commands::Command;
use config::Config;
use std::process::ExitCode;

/// Durable workflows for LLM pipelines on PostgreSQL.
///
/// A workflow is a file; a run of it survives crashes, deploys and rate limits, and no finished call is paid for twice.
#[derive(Parser)]
#[command(name = "krowoc", version, propagate_version = true, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  krowoc init my-project               a project folder with a first workflow
  krowoc validate my-project/workflows every problem of every file, with its place
  krowoc run my-project/workflows/summarize-note.yaml --set note='…'
  krowoc runs list                     what ran, what runs, how it ended

Environment:
  DATABASE_URL       a PostgreSQL of your own (default: a private one, started when needed)
  KROWOC_LISTEN_URL  the same database without a transaction pooler in front, for notifications
                     (default: DATABASE_URL; without them workers look once a second)
  KROWOC_BIND        where HTTP is served (default: 127.0.0.1:7070)
  KROWOC_API_TOKEN   the token of the API, 16 characters or more (default: one that the first
                     start makes and shows)
  KROWOC_KEEP_RUNS   how long runs are kept after their end: `30d` (default: for ever)
  KROWOC_HOME        where the private PostgreSQL lives (default: the user's data folder)
  OPENAI_API_KEY     the key of the `openai` provider
  OPENAI_BASE_URL    a server with OpenAI's protocol in its place (Ollama, vLLM, LiteLLM):
                     `http://localhost:11434/v1`
  KROWOC_HTTP_ALLOW_PRIVATE
                     `true`: http steps may reach private addresses (default: false)
  KROWOC_LOG         what is logged: `info`, `krowoc_engine=debug`, … (default: info)
  KROWOC_LOG_FORMAT  `text` or `json` (default: text)

The exit code is 0 for success, 1 for a failure that the output explains, 2 for a wrong command line; \
`run` and `runs watch` end with 3 for a cancelled run and 130 when they are interrupted.";

fn main() -> ExitCode {
    // Before anything opens a connection; it can only fail if it was done before, and this is the first line.
    rustls::crypto::ring::default_provider().install_default().ok();
    let cli = Cli::parse();
    run(cli.command).unwrap_or_else(|error| failure::report(&error))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let config = Config::from_env()?;
    telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(command.run(&config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        let mut cli = Cli::command();
        cli.build();
        let mut open: Vec<clap::Command> = vec![cli];
        while let Some(command) = open.pop() {
            let name = command.get_name().to_owned();
            open.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("krowoc "), "`{name}` has no example in its --help");
        }
    }
}
