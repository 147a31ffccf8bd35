//! Repeatable chance: the same on every machine and with every version of Rust, which the standard hasher is not.

/// A stream of numbers that depends only on what it was made from (FNV-1a to stir, SplitMix64 to roll).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Dice for a seed and a purpose.
    pub(super) fn of(seed: u64, purpose: &[u8]) -> Self {
        let mut dice = Self(0xcbf2_9ce4_8422_2325);
        dice.stir(&seed.to_le_bytes());
        dice.stir(purpose);
        dice
    }

    /// Makes all further rolls depend on these bytes too.
    pub(super) fn stir(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Any number.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 (included) to 1 (not).
    pub(super) fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to `n` (not included); 0 if `n` is.
    pub(super) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.roll() % n as u64) as usize }
    }
}
