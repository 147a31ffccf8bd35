//! Joins the server of a home, prints its URL and process, and leaves when its input ends.
//! A process of its own, so that tests can kill it: `hold HOME [throwaway]`.

use krowoc_postgres::{Left, Local, LocalConfig, Purpose};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().ok_or("usage: hold HOME [throwaway]")?;
    let mut config = LocalConfig::new(home);
    if arguments.next().as_deref() == Some("throwaway") {
        config.purpose = Purpose::Throwaway;
    }
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
