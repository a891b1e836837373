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
/// another. Most are claimed and stay so: a prepared one takes seven descriptors of the funclet, of 20,000 here. In network
/// and mount namespaces of its own, with a sysfs and the cgroups below: `unshare --net --mount`.
#[test]
#[ignore = "prints times, and makes thousands of containers"]
fn claim_times_by_links() {
    if !can_run() {
        return;
    }
    const POOL: u32 = 10;
    for (held, network) in [
        (0, None),
        (0, Some(NetworkMode::Egress)),
        (990, None),
        (990, Some(NetworkMode::Egress)),
        (2960, None),
        (2960, Some(NetworkMode::Egress)),
    ] {
        let began = Instant::now();
        let mut node = Node::start(Options {
            pool: POOL,
            network,
            slots_max: 3000,
            memory_bytes: 1000 << 30,
            runtimes: vec![provided()],
            ..Options::default()
        });
        let code = node.code(1, &[("bootstrap", "#!/bin/sh\nexec sleep 600\n")]);
        let _held: Vec<Instance> = (0..held).map(|_| node.engine.claim(0, code)).collect();
        let setting = format!("{held} held, {network:?}");
        println!("{setting}: made in {} ms", began.elapsed().as_millis());
        let modes = if network.is_some() {
            &[None, Some(NetworkMode::Full), Some(NetworkMode::None)][..]
        } else {
            &[None]
        };
        for mode in modes {
            let (mut attach, mut all) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                eventually("the pool is full", || cold(&mut node) == POOL);
                let claim = node.engine.claim_request(0, code);
                let claimed = Instant::now();
                let instance = node.engine.claim_with(Claim { network: *mode, ..claim });
                all.push(micros(claimed));
                attach.push(u64::from(instance.attach_us));
                node.engine.kill(&instance);
            }
            print(&format!("{setting}, claims of {mode:?}: attach"), attach);
            print(&format!("{setting}, claims of {mode:?}: claim"), all);
        }
        let began = Instant::now();
        assert_eq!(node.stop(), 0);
        println!("{setting}: ended in {} ms", began.elapsed().as_millis());
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
