//! Steps that do what no step should: keep their threads, panic in every way, bring or say more than anybody can keep. Each ends as its
//! class says, within its limits, and the others go on. [`kinds`] misbehave, [`world`] is a worker that has to live with them.

mod kinds;
mod panics;
mod sizes;
mod threads;
mod world;
