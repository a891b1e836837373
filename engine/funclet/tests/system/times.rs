//! How long claims take; prints, and decides nothing.

use std::time::Instant;

use faaster_protocol::funclet::{Claim, Event, NetworkMode, Request};

use crate::support::{Instance, Node, Options, can_run, eventually, provided, python};

const ROUNDS: usize = 200;

fn print(what: &str, mut values: Vec<u64>) {
    values.sort_unstable();
    let at = |part: usize| values[(values.len() - 1) * part / 100];
    println!("{what:<52} p50 {:>6} us   p99 {:>6} us   n {}", at(50), at(99), values.len());
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap()
}

#[derive(Default)]
struct Times {
    attach: Vec<u64>,
    funclet: Vec<u64>,
    engine: Vec<u64>,
    ready: Vec<u64>,
    answer: Vec<u64>,
    killed: Vec<u64>,
}

impl Times {
    fn record(
        &mut self,
        node: &mut Node,
        runtime: u16,
        code: faaster_protocol::funclet::CodeHash,
    ) -> Instance {
        let began = Instant::now();
        let mut instance = node.engine.claim(runtime, code);
        self.engine.push(micros(began));
        self.funclet.push(u64::from(instance.claim_us));
        self.attach.push(u64::from(instance.attach_us));
        instance.load();
        self.ready.push(micros(began));
        instance.run("result = 1");
        self.answer.push(micros(began));
        instance
    }

    fn print(self, what: &str) {
        print(&format!("{what}: attach (code, limits, cores)"), self.attach);
        print(&format!("{what}: claim, in the funclet"), self.funclet);
        print(&format!("{what}: claim, seen by the engine"), self.engine);
        print(&format!("{what}: claim to ready"), self.ready);
        print(&format!("{what}: claim to first answer"), self.answer);
        print(&format!("{what}: kill to ended"), self.killed);
    }
}

/// A pool that is full before each claim, and one that is always empty.
#[test]
#[ignore = "prints times"]
fn claim_times() {
    if !can_run() {
        return;
    }
    for (what, pool) in [("pool hit", 4), ("pool empty", 0)] {
        let mut node = Node::start(Options { pool, runtimes: vec![python()], ..Options::default() });
        let code = node.code(1, &[]);
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            eventually("the pool is full", || cold(&mut node) == pool);
            let instance = times.record(&mut node, 0, code);
            node.engine.kill(&instance);
            let wanted = (instance.slot, instance.generation);
            let began = Instant::now();
            node.engine.expect(|event| match event {
                Event::Ended { slot, generation, .. } if (*slot, *generation) == wanted => Some(()),
                _ => None,
            });
            times.killed.push(micros(began));
        }
        times.print(what);
    }
}

/// Claims on a node with few and with many containers, each with its link; whether they want the mode that it has, or
/// another. In a network namespace of its own: `unshare --net`.
#[test]
#[ignore = "prints times, and makes thousands of containers"]
fn claim_times_by_links() {
    if !can_run() {
        return;
    }
    for (pool, network) in [
        (10, None),
        (10, Some(NetworkMode::Egress)),
        (1000, None),
        (1000, Some(NetworkMode::Egress)),
        (2900, Some(NetworkMode::Egress)),
    ] {
        let began = Instant::now();
        let mut node = Node::start(Options {
            pool,
            network,
            slots_max: 2990,
            memory_bytes: 64 << 30,
            runtimes: vec![provided()],
            ..Options::default()
        });
        let code = node.code(1, &[("bootstrap", "#!/bin/sh\nsleep 60\n")]);
        eventually("the pool is full", || cold(&mut node) == pool);
        println!("{pool} containers, {network:?}: made in {} ms", began.elapsed().as_millis());
        let modes = if network.is_some() {
            &[None, Some(NetworkMode::Full), Some(NetworkMode::None)][..]
        } else {
            &[None]
        };
        for mode in modes {
            let mut attach = Vec::new();
            for _ in 0..ROUNDS {
                eventually("the pool is full", || cold(&mut node) == pool);
                let claim = node.engine.claim_request(0, code);
                let instance = node.engine.claim_with(Claim { network: *mode, ..claim });
                attach.push(u64::from(instance.attach_us));
                node.engine.kill(&instance);
            }
            print(&format!("{pool} containers, {network:?}, claims of {mode:?}: attach"), attach);
        }
        let began = Instant::now();
        assert_eq!(node.stop(), 0);
        println!("{pool} containers, {network:?}: ended in {} ms", began.elapsed().as_millis());
    }
}

fn cold(node: &mut Node) -> u32 {
    node.engine.send(&Request::Describe);
    let cold = node.engine.expect(|event| match event {
        Event::Node(node) => Some(node.slots_cold),
        _ => None,
    });
    node.engine.aside.clear();
    cold
}
