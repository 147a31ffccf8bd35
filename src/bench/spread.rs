//! Medians and percentiles.

/// Measured values, in order.
#[derive(Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Sorts them.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that a share of all (0 to 1) does not exceed, by nearest rank; NaN of none.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The median.
    pub fn p50(&self) -> f64 {
        self.at(0.5)
    }

    /// All but a hundredth are below.
    pub fn p99(&self) -> f64 {
        self.at(0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!([spread.at(0.0), spread.p50(), spread.p99(), spread.at(1.0)], [1.0, 50.0, 99.0, 100.0]);
        assert!(Spread::default().p50().is_nan());
    }
}
