//! Joins the server of a home, prints its URL and process, and leaves when its input ends.
//! A process of its own, so that tests can kill it: `hold HOME`.

use krowoc_postgres::{Durability, Left, Local, LocalConfig};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = std::env::args().nth(1).ok_or("usage: hold HOME")?;
    let config = LocalConfig { durability: Durability::Fast, ..LocalConfig::new(home) };
    let local = Local::join_blocking(&config)?;
    println!("{}\n{}", local.pid(), local.url("krowoc"));
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    match local.leave_blocking()? {
        Left::Running => println!("others still use the server"),
        Left::Stopped => println!("the server has stopped"),
    }
    Ok(())
}
