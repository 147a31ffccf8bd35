//! `krowoc token`

use crate::{api_token, config::Config, database::Session, output};
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc token renew                   a new token, where the old one is lost or known to others")]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Replace the token of the API, and show the new one
    Renew(Renew),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc token renew
  TOKEN=$(krowoc token renew)

The token goes to standard output, and only its hash is kept. Every server that runs takes the new one at once; the old one opens nothing \
any more within five seconds. Where KROWOC_API_TOKEN is set, servers take that one and no other.")]
struct Renew {}

impl Token {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Renew(Renew {}) => {
                let token = Session::with(config, async |session| api_token::renew(&session.engine).await).await?;
                if config.api_token.is_some() {
                    output::note("KROWOC_API_TOKEN is set here: a server with that setting takes its token, and not this one");
                }
                output::line(token)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
