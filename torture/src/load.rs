//! Work for a world while it is harmed.

use crate::{dice::Dice, shapes::Shape, world::World};
use anyhow::Result;
use std::time::{Duration, Instant};

/// What is kept going.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// Shapes to choose from.
    pub shapes: &'a [Shape],
    /// Below so many live runs there are more.
    pub live: u64,
    /// So many at once.
    pub slice: usize,
}

impl Load<'_> {
    /// Starts runs if there are few.
    pub async fn top_up(&self, world: &mut World, dice: &mut Dice) -> Result<()> {
        if world.live().await? < self.live {
            let slice: Vec<Shape> = (0..self.slice).map(|_| *dice.pick(self.shapes)).collect();
            world.start(&slice).await?;
        }
        Ok(())
    }

    /// Keeps it up for a while.
    pub async fn keep_up(&self, world: &mut World, dice: &mut Dice, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.top_up(world, dice).await?;
            tokio::time::sleep(Duration::from_millis(5).min(until.saturating_duration_since(Instant::now()))).await;
        }
        Ok(())
    }
}
