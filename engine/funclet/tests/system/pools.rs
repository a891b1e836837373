//! Pools that follow demand.

use std::time::Duration;

use faaster_limits::MEMORY_MB_MIN;
use faaster_protocol::funclet::{Claim, CodeHash, Event, PoolInfo, Request};

use crate::support::{Engine, Instance, Node, Options, can_run, eventually, python};

/// The first runtime's.
fn look(engine: &mut Engine) -> PoolInfo {
    engine.send(&Request::Describe);
    let pool = engine.expect(|event| match event {
        Event::Pool(pool) if pool.runtime.0 == 0 => Some(*pool),
        _ => None,
    });
    engine.expect(|event| matches!(event, Event::Node(_)).then_some(()));
    engine.aside.retain(|event| !matches!(event, Event::Slot(_) | Event::Pool(_)));
    pool
}

/// So many claims, all sent before the first is answered.
fn claim_at_once(engine: &mut Engine, code: CodeHash, count: usize) -> Vec<Instance> {
    let claims: Vec<_> =
        (0..count).map(|_| Claim { memory_mb: MEMORY_MB_MIN, ..engine.claim_request(0, code) }).collect();
    claims.iter().for_each(|claim| engine.send(&Request::Claim(*claim)));
    claims.iter().map(|claim| engine.expect_claimed(claim.ticket)).collect()
}

fn pool_options(slots_max: u32) -> Options {
    Options {
        pool: 1,
        pool_max: 5,
        pool_fall_after: Duration::from_millis(300),
        slots_max,
        runtimes: vec![python()],
        ..Options::default()
    }
}

#[test]
fn a_burst_enlarges_the_pool_and_quiet_shrinks_it_to_its_floor() {
    if !can_run() {
        return;
    }
    let mut node = Node::start(Options { pool_fall_after: Duration::from_secs(3600), ..pool_options(20) });
    let code = node.code(1, &[]);
    let engine = &mut node.engine;
    eventually("the pool is full", || look(engine).cold == 1);
    let burst = claim_at_once(engine, code, 7);
    // What was missing is counted up to the maximum, and boots that came meanwhile were not.
    eventually("the pool is as large as the burst, or its maximum", || look(engine).cold == 5);
    assert_eq!((look(engine).floor, look(engine).target), (1, 5));
    drop(burst);
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();

    let mut node = Node::start(pool_options(20));
    let code = node.code(1, &[]);
    let engine = &mut node.engine;
    let burst = claim_at_once(engine, code, 5);
    eventually("the pool is back at its floor", || {
        let pool = look(engine);
        (pool.target, pool.cold, pool.creating) == (1, 1, 0)
    });
    let again = claim_at_once(engine, code, 1);
    assert_eq!((burst.len(), again.len()), (5, 1));
    assert_eq!(node.stop(), 0);
    node.assert_nothing_left();
}

#[test]
fn a_pool_is_no_larger_than_memory_and_slots_could_serve() {
    if !can_run() {
        return;
    }
    let room = u64::from(MEMORY_MB_MIN) << 20;
    let slow = Duration::from_secs(3600);
    let by_memory = Options { memory_bytes: 6 * room, pool_fall_after: slow, ..pool_options(20) };
    let by_slots = Options { pool_fall_after: slow, ..pool_options(6) };
    for options in [by_memory, by_slots] {
        let mut node = Node::start(options);
        let code = node.code(1, &[]);
        let engine = &mut node.engine;
        let burst = claim_at_once(engine, code, 4);
        eventually("as many as are left", || look(engine).cold == 2);
        assert_eq!(look(engine).target, 2);
        // What is given back may be prepared.
        engine.kill(&burst[0]);
        eventually("one more", || look(engine).cold == 3);
        assert_eq!(look(engine).target, 3);
        assert_eq!(node.stop(), 0);
        node.assert_nothing_left();
    }
}
