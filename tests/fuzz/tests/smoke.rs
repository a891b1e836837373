//! A short run of every target with plain cargo: its seeds, then random mutations of them.
//!
//! Owns: a simple mutator. Must not know: the targets. `FAASTER_FUZZ_ROUNDS=50` runs fifty times as long,
//! `FAASTER_FUZZ_SEED=7` takes other chances.

use faaster_fuzz::{TARGETS, Target};

/// Random numbers from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) >> 1).expect("63 bits fit") % limit
    }
}

/// Bytes that mean something to some parser.
const SPICES: [&[u8]; 14] = [
    b"\r\n",
    b"\n",
    b"\0",
    b"\xff\xff\xff\xff",
    b":",
    b" ",
    b"{",
    b"\"",
    b"\\u0000",
    b"..",
    b"/",
    b"0",
    b"9999999999",
    b"PK\x01\x02",
];

fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << dice.below(8);
            }
            1 if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] = u8::try_from(dice.below(256)).expect("below 256");
            }
            2 => drop(bytes.splice(at..at, SPICES[dice.below(SPICES.len())].iter().copied())),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + dice.below(20)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            5 => {
                let other = &others[dice.below(others.len())];
                let from = dice.below(other.len() + 1);
                drop(bytes.splice(at..at, other[from..].iter().copied()));
            }
            _ => {
                let end = (at + dice.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
    }
    bytes.truncate(20_000);
}

/// Shows the input when a check panics.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {} failed on b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn smoke(target: &Target) {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let rounds = target.rounds * usize::try_from(number("FAASTER_FUZZ_ROUNDS", 1)).expect("a small number");
    let mut dice = Dice(number("FAASTER_FUZZ_SEED", 1));
    let seeds = (target.seeds)();
    for seed in &seeds {
        let _shown = Shown(target.name, seed);
        (target.check)(seed);
    }
    for _ in 0..rounds {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, &seeds, &mut dice);
        let _shown = Shown(target.name, &bytes);
        (target.check)(&bytes);
    }
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

#[test]
fn http() {
    smoke(target("http"));
}

#[test]
fn frames() {
    smoke(target("frames"));
}

#[test]
fn image() {
    smoke(target("image"));
}

#[test]
fn messages() {
    smoke(target("messages"));
}

#[test]
fn netlink() {
    smoke(target("netlink"));
}

#[test]
fn response() {
    smoke(target("response"));
}

#[test]
fn trigger() {
    smoke(target("trigger"));
}

#[test]
fn zip() {
    smoke(target("zip"));
}
