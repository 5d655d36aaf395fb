//! Runs the fuzz body over thousands of made-up scripts.
//!
//! Called by `cargo test`. Invariants: `../fuzz/fuzz_targets/body.rs`; the scripts are the same in
//! every run, unless `RUSTMQ_SEED` says otherwise, or `RUSTMQ_SCRIPTS` how many. Some calls succeed and
//! some kill the guest, or the scripts prove nothing.

#[path = "../fuzz/fuzz_targets/body.rs"]
mod body;

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

    /// A number that is likely to be a good or a bad one.
    fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => self.roll(),
            1 => u32::MAX - self.below(3),
            2 => 0x7fff_fffe + self.below(4),
            3 => self.below(1 << 18),
            4 => 512 + self.below(100),
            _ => self.below(5),
        }
    }

    fn script(&mut self, steps: u32) -> Vec<u8> {
        let mut script = Vec::new();
        for _ in 0..=self.below(steps) {
            let call = self.below(body::CALLS.len() as u32) as u8;
            // Most calls mean what may fit, or no script would come further than to the first.
            let meant = match self.below(6) {
                0 => self.roll() as u8,
                _ => 0,
            };
            script.extend([call, meant]);
            (0..16).for_each(|_| script.extend(self.number().to_le_bytes()));
        }
        script
    }
}

fn given(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("it is a number"))
}

/// Says which script it was, so that a failure says how long it took to find.
struct At(u64);

impl Drop for At {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("script {} of the seed found it", self.0);
        }
    }
}

#[test]
fn no_script_harms_the_host() {
    let (seed, scripts) = (
        given("RUSTMQ_SEED", 0x5eed),
        given("RUSTMQ_SCRIPTS", 20_000),
    );
    eprintln!("{scripts} scripts of seed {seed}");
    let mut dice = Dice(seed);
    body::run(&[]);
    let mut ends = [0u64, 0];
    for number in 1..=scripts {
        let _at = At(number);
        let is_dead = body::run(&dice.script(8));
        ends[usize::from(is_dead)] += 1;
    }
    eprintln!("went on, died: {ends:?}");
    let some = scripts / 20;
    assert!(ends.iter().all(|count| *count > some), "{ends:?}");
}
