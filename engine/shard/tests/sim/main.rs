//! Random scenarios on simulated rings: whatever the kernel, the clients, the runtimes and the funclet do, every client
//! that stays is answered once, in order and rightly, and nothing is left behind.
//!
//! Owns: the course of a scenario. Must not know: how its parts work.
//!
//! `FAASTER_SIM_SEEDS=5000` runs more, `FAASTER_SIM_FIRST=5000` others; `FAASTER_SIM_SEED=17` runs one again; with `FAASTER_SIM_TRACE=1` a failure
//! prints what happened last.

mod client;
mod funclet;
mod judge;
mod runtime;
mod scenario;
mod stage;
mod work;

use std::time::Duration;

use stage::{Act, Drained, Stage};

/// Simulated time for all answers: some clients ask a hundred times, one by one, for what never gets ready.
const PATIENCE: Duration = Duration::from_secs(2000);
const SEEDS_DEFAULT: u64 = 200;

/// Says which seed failed, when its stage is torn down by a panic.
struct Report<'a> {
    seed: u64,
    stage: &'a mut Stage,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stage.print_trace();
            eprintln!("seed {} failed; {:?}", self.seed, self.stage);
            eprintln!(
                "repeat: FAASTER_SIM_SEED={} FAASTER_SIM_TRACE=1 cargo test -p faaster-shard --test sim",
                self.seed
            );
        }
    }
}

#[test]
fn random_scenarios_keep_every_promise() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse().expect("a number"));
    if let Some(seed) = number("FAASTER_SIM_SEED") {
        play(seed);
        return;
    }
    let first = number("FAASTER_SIM_FIRST").unwrap_or(0);
    let seeds = number("FAASTER_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let answered: usize = (first..first + seeds).map(play).sum();
    println!("{answered} requests answered");
    assert!(answered > 1000, "a simulation in which nothing happens proves nothing");
}

/// Plays one scenario to its end; answers with how many requests were answered.
fn play(seed: u64) -> usize {
    let mut stage = Stage::new(seed);
    let report = Report { seed, stage: &mut stage };
    let stage = &mut *report.stage;
    open(stage);
    let done = stage.play_until(PATIENCE, Stage::all_answered);
    assert!(done, "unanswered: {:#?}", stage.waiting());
    let answered = stage.answered();
    // What runs for nobody may run out, and the engine closes what it said it would; then the clients go, and the
    // instances after their idle time.
    stage.play_until(Duration::from_secs(5), |_| false);
    assert!(stage.overdue().is_empty(), "open for nothing: {:#?}", stage.overdue());
    let drained = if seed.is_multiple_of(4) { Drained::Yes } else { Drained::No };
    let reports = stage.drain_if(drained);
    match drained {
        Drained::No => stage.close_clients(),
        Drained::Yes => {
            let gone = stage.play_until(Duration::from_secs(5), |stage| stage.open_clients() == 0);
            assert!(gone, "{} connections outlived a drain", stage.open_clients());
        }
    }
    stage.calm_down();
    stage.play_until(Duration::from_secs(1000), |_| false);
    let expected = if drained == Drained::Yes { stage.shards() } else { 0 };
    assert_eq!(reports.try_iter().count(), expected, "each shard says once that it is done");
    stage.check_quiet(drained);
    answered
}

/// Deploys the functions, lets clients come, and plans what the operator will do.
fn open(stage: &mut Stage) {
    for plan in 0..stage.scenario.plans.len() {
        let handler = handler(stage);
        stage.deploy(plan, handler);
    }
    stage.play_until(Duration::from_millis(20), |_| false);
    for _ in 0..stage.scenario.clients {
        let start_in_ns = stage.dice.below(stage.scenario.length_ns);
        stage.add_client(start_in_ns);
    }
    for _ in 0..stage.scenario.operator_acts {
        let plan = stage.dice.index(stage.scenario.plans.len());
        let handler = handler(stage);
        let act = match stage.dice.below(8) {
            0 | 1 => Act::Invalidate,
            2 => Act::Shortage,
            3 => Act::Report,
            4 | 5 if stage.scenario.trouble.removals => Act::Remove(plan),
            _ => Act::Deploy(plan, handler),
        };
        let delay_ns = stage.dice.below(stage.scenario.length_ns * 2);
        stage.plan(delay_ns, act);
    }
    for _ in 0..stage.scenario.funclet_deaths {
        let delay_ns = stage.dice.below(stage.scenario.length_ns);
        stage.plan(delay_ns, Act::FuncletDies);
    }
}

/// What the next version's handler does while it is loaded.
fn handler(stage: &mut Stage) -> &'static str {
    if stage.scenario.trouble.bad_versions && stage.dice.one_in(2) {
        return ["throws", "crashes", "babbles", "hangs"][stage.dice.index(4)];
    }
    "works"
}
