//! Runs the fuzz body over thousands of made-up scripts.
//!
//! Called by `cargo test`. Invariants: `../fuzz/fuzz_targets/body.rs`; the scripts are the same in
//! every run, unless `RUSTMQ_SEED` says otherwise, or `RUSTMQ_SCRIPTS` how many. Some calls succeed and
//! some kill the guest, or the scripts prove nothing.
//!
//! Bugs that were planted in the host, one at a time, and the script that found each (of seeds 24301, the
//! default, and 1), with the calls that there were then; 400,000 scripts of seed 7 find nothing without them:
//! - no bound on the bytes that a lane keeps: 2293, 6315
//! - no bound on the number of timers: 179, 616
//! - a call that failed keeps what it added to the sums of the state: 23, 6
//! - the number of a lookup table is not checked: 30, 9
//! - a migration that failed is not taken back: 1, 1
//! - requests are made outside of a batch: 215, 210
//! - no bound on the requests of a batch: 571, 3895
//!
//! The first three were found only after half of the calls got lists that fit each other, and the limits
//! became so small that a script reaches them.

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
            let mut numbers: [u32; 16] = std::array::from_fn(|_| self.number());
            if self.below(2) == 0 {
                let (interface, _, arguments, _) = body::CALLS[usize::from(call)];
                self.fit(interface, arguments, &mut numbers);
            }
            numbers
                .iter()
                .for_each(|number| script.extend(number.to_le_bytes()));
        }
        script
    }

    /// Makes lists of as many elements as each other, and whole columns: what the host takes, and does
    /// something with. Three lists in a row are a column; what is left over is a list of its own, the last
    /// one for timers (their times), the first one else (the parents of rows).
    fn fit(&mut self, interface: &str, arguments: &str, numbers: &mut [u32; 16]) {
        let rows = 1 + self.below(7);
        let lists: Vec<usize> = arguments.match_indices("al").map(|(at, _)| at).collect();
        let over = lists.len() % 3;
        let before = if interface == "timers" { 0 } else { over };
        for (number, at) in lists.iter().enumerate() {
            // offsets 0, 1, 2 and so on stand at 0; bytes of all kinds in the script
            let (address, len) = match number.checked_sub(before) {
                Some(of) if number < lists.len() + before - over => match of % 3 {
                    0 => (0, rows + 1),
                    1 => (4096 + 8 * self.below(40), rows),
                    _ => (0, 0),
                },
                _ => (8 * self.below(4), rows),
            };
            (numbers[*at], numbers[at + 1]) = (address, len);
        }
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
