//! `krowoc migrate`

use crate::{config::Config, database::Session, output};
use clap::Args;
use krowoc_engine::Error;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://krowoc@db/krowoc krowoc migrate
  krowoc migrate --check || echo 'the schema is not this version of krowoc'

All or nothing, and safe to repeat; the user needs the right to create a schema. A private \
database is migrated by whichever command opens it.")]
pub struct Migrate {
    /// Change nothing; the exit code is 1 if the schema is older or newer than this krowoc
    #[arg(long)]
    check: bool,
}

impl Migrate {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let session = Session::connect(config).await?;
        let done = self.carry_out(&session).await;
        let closed = session.close().await;
        let said = done?;
        closed?;
        output::line(said)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn carry_out(&self, session: &Session) -> anyhow::Result<&'static str> {
        match session.engine.check_schema().await {
            Ok(()) => Ok("the schema is current; nothing to do"),
            Err(Error::Schema(_)) if !self.check => {
                session.engine.migrate().await?;
                // A schema newer than this binary has no migration that it lacks, and is refused here.
                session.engine.check_schema().await?;
                Ok("the schema is current now")
            }
            Err(error) => Err(error.into()),
        }
    }
}
