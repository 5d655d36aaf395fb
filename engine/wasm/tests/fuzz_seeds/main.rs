//! Runs the fuzz bodies over thousands of made-up inputs: scripts of a guest, and files.
//!
//! Called by `cargo test`. Invariants: those of `../../fuzz/fuzz_targets`; the inputs are the same in every
//! run, unless `RUSTMQ_SEED` says otherwise, or `RUSTMQ_SCRIPTS` how many.

// both targets have `section.rs`, as each is compiled alone, too
#![allow(clippy::duplicate_mod)]

#[path = "../../fuzz/fuzz_targets/body.rs"]
mod body;
#[path = "../../fuzz/fuzz_targets/file_body.rs"]
mod file_body;
mod files;
mod guest;

/// xorshift64*: enough to pick numbers, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, below: u32) -> u32 {
        self.roll() % below
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

/// The dice of a run, and how many inputs it makes.
fn run(otherwise: u64) -> (Dice, u64) {
    let (seed, inputs) = (
        given("RUSTMQ_SEED", 0x5eed),
        given("RUSTMQ_SCRIPTS", otherwise),
    );
    eprintln!("{inputs} inputs of seed {seed}");
    (Dice(seed), inputs)
}

fn given(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("it is a number"))
}

/// Says which input it was, so that a failure says how long it took to find.
struct At(u64);

impl Drop for At {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input {} of the seed found it", self.0);
        }
    }
}
