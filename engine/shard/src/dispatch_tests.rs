//! When another instance is asked for: depth before width, and never more than the queue needs.

use std::sync::Arc;

use faaster_function::{Deployed, deployed::Concurrency};
use faaster_protocol::funclet::{CodeHash, RuntimeIndex};
use proptest::prelude::*;

use super::*;
use crate::functions::Functions;

/// One situation; times in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Situation {
    /// Calls at once in one instance; 0: exclusive.
    quota: u32,
    instances_max: u32,
    queued: u32,
    /// Claims under way.
    starting: u32,
    /// Instances that take calls now or soon, loading ones included.
    serving: usize,
    loading: usize,
    service_ms: u64,
    cold_ms: u64,
    /// How long the front of the queue has waited.
    waited_ms: u64,
}

/// An exclusive function with one call waiting and nothing else; cold starts take 5 ms.
const ALONE: Situation = Situation {
    quota: 0,
    instances_max: 1000,
    queued: 1,
    starting: 0,
    serving: 0,
    loading: 0,
    service_ms: 0,
    cold_ms: 5,
    waited_ms: 0,
};

fn wanted(it: Situation) -> usize {
    let mut functions = Functions::default();
    let concurrency = if it.quota == 0 { Concurrency::Exclusive } else { Concurrency::Shared(it.quota) };
    let index = functions.deploy(Arc::new(deployed(concurrency, it.instances_max)), 1);
    let function = functions.get_mut(index);
    function.queue = (0..it.queued).map(|n| Id::new(n, 1)).collect();
    function.starting = it.starting;
    function.service_ns = it.service_ms * 1_000_000;
    function.cold_ns = it.cold_ms * 1_000_000;
    starts_wanted(function, it.serving, it.loading, it.waited_ms * 1_000_000)
}

fn deployed(concurrency: Concurrency, instances_max: u32) -> Deployed {
    Deployed {
        key: "h:f:1".into(),
        brn: "brn".into(),
        name: "f".into(),
        version: "1".into(),
        owner: "o".into(),
        handler: "h".into(),
        runtime: RuntimeIndex(0),
        code: CodeHash([0; 32]),
        commit_id: "c".into(),
        revision: 1,
        memory_mb: 128,
        timeout_ms: 1000,
        concurrency,
        instances_max,
        instances_min: 0,
        env: Default::default(),
        function_tag: 1,
        account_tag: 1,
        network_mode: None,
        layers: None,
    }
}

#[test]
fn the_table_of_starts() {
    let table: &[(&str, Situation, usize)] = &[
        ("the first call starts the first instance at once", ALONE, 1),
        ("a crowd starts one, too, while nothing is known", Situation { queued: 50, ..ALONE }, 1),
        ("what comes already is enough for one", Situation { starting: 1, ..ALONE }, 0),
        ("so is what loads already", Situation { serving: 1, loading: 1, waited_ms: 50, ..ALONE }, 0),
        ("nobody waits, nobody comes", Situation { queued: 0, ..ALONE }, 0),
        (
            "a short wait is shorter than a cold start",
            Situation { queued: 3, serving: 1, service_ms: 1, ..ALONE },
            0,
        ),
        (
            "a wait as long as a cold start is no reason",
            Situation { queued: 5, serving: 1, service_ms: 1, ..ALONE },
            0,
        ),
        (
            "a longer wait starts as many as empty the queue in one cold start",
            Situation { queued: 10, serving: 1, service_ms: 1, ..ALONE },
            2,
        ),
        (
            "more serve, so the same queue is short",
            Situation { queued: 10, serving: 4, service_ms: 1, ..ALONE },
            0,
        ),
        (
            "long calls: one instance for each that waits",
            Situation { queued: 3, serving: 2, service_ms: 100, ..ALONE },
            3,
        ),
        (
            "long calls: never more than wait",
            Situation { queued: 3, serving: 2, starting: 2, service_ms: 100, ..ALONE },
            1,
        ),
        (
            "the bound of the function holds",
            Situation { queued: 30, serving: 2, instances_max: 4, service_ms: 100, ..ALONE },
            2,
        ),
        (
            "the bound counts what comes",
            Situation { queued: 30, serving: 2, starting: 2, instances_max: 4, service_ms: 100, ..ALONE },
            0,
        ),
        (
            "a redeploy may leave more than the new bound",
            Situation { queued: 30, serving: 9, instances_max: 4, service_ms: 100, ..ALONE },
            0,
        ),
        (
            "a front that waits long tells more than an average",
            Situation { serving: 1, service_ms: 1, waited_ms: 50, ..ALONE },
            1,
        ),
        (
            "a shared instance takes several",
            Situation { quota: 8, queued: 16, serving: 1, service_ms: 100, ..ALONE },
            2,
        ),
        (
            "a shared instance's slots shorten the wait",
            Situation { quota: 8, queued: 16, serving: 1, service_ms: 2, ..ALONE },
            0,
        ),
    ];
    for (why, situation, expected) in table {
        assert_eq!(wanted(*situation), *expected, "{why}: {situation:?}");
    }
}

fn situations() -> impl Strategy<Value = Situation> {
    let counts = (0u32..5, 1u32..20, 0u32..100, 0u32..10, 0usize..20);
    let times = (0usize..20, 0u64..300, 1u64..300, 0u64..300);
    (counts, times).prop_map(
        |((quota, instances_max, queued, starting, serving), (loading, service_ms, cold_ms, waited_ms))| {
            Situation {
                quota,
                instances_max,
                queued,
                starting,
                serving,
                loading: loading.min(serving),
                service_ms,
                cold_ms,
                waited_ms,
            }
        },
    )
}

proptest! {
    #[test]
    fn bounds_hold_in_every_situation(it in situations()) {
        let wanted = wanted(it);
        let slots = it.quota.max(1) as usize;
        let coming = it.starting as usize + it.loading;
        prop_assert!(wanted == 0 || wanted + coming <= (it.queued as usize).div_ceil(slots));
        let all = wanted + it.serving + it.starting as usize;
        prop_assert!(wanted == 0 || all <= it.instances_max as usize);
        if it.queued > 0 && it.serving + it.starting as usize == 0 {
            prop_assert_eq!(wanted, 1, "never none while nothing serves");
        }
        let lanes = it.serving.max(1) as u64 * slots as u64;
        let short = u64::from(it.queued) * it.service_ms / lanes < it.cold_ms && it.waited_ms <= it.cold_ms;
        if short && it.serving > 0 {
            prop_assert_eq!(wanted, 0, "depth before width");
        }
    }
}
