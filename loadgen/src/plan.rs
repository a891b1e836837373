//! A run, checked and ready: everything that its threads need to know before the first send.
//!
//! Owns: nothing that changes. Must not know: flags, reports.

use std::time::Duration;

use crate::bounds::DESCRIPTORS_SPARE;
use crate::request::{Expectation, KeepAlive, Request};
use crate::schedule::{Arrivals, Rate};
use crate::target::Target;

/// How sends are triggered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loop {
    /// The next request goes out when an answer came.
    Closed,
    /// Requests go out when they are due.
    Open { rate: Rate, arrivals: Arrivals },
}

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// After this time, warm-up not included.
    Time(Duration),
    /// After this many requests, those of the warm-up not included.
    Count(u64),
}

/// Whether answers are read for what they tell of the time inside of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phases {
    Read,
    Skipped,
}

/// When a thread that keeps to a schedule spins instead of sleeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// Before sends and, while an answer is missing, after them.
    AroundSends,
    /// Before sends alone: answers take far longer than a wake-up, and the server may need the core.
    BeforeSends,
}

/// Everything about a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub target: Target,
    pub request: Request,
    pub expectation: Expectation,
    pub keep_alive: KeepAlive,
    pub pipeline: usize,
    pub connections: usize,
    /// Core of each thread.
    pub cores: Vec<u16>,
    pub drive: Loop,
    /// Of the schedule and of the requests' random choices.
    pub seed: u64,
    pub extent: Extent,
    pub warm_up: Duration,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub phases: Phases,
    pub spin: Spin,
}

/// There are fewer descriptors than connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "{connections} connections need {needed} descriptors and the limit is {limit}: run `ulimit -n {needed}` first \
     (as root, or after raising it in /etc/security/limits.conf), or ask for at most {possible} connections"
)]
pub struct TooFewDescriptors {
    connections: usize,
    needed: u64,
    limit: u64,
    possible: u64,
}

impl Plan {
    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.cores.len()
    }

    /// Connections of one thread: an even share.
    pub fn connections_of(&self, thread: usize) -> usize {
        share(self.connections as u64, thread, self.threads())
            .try_into()
            .expect("no more than all the connections")
    }

    /// Requests of one thread, where they are counted.
    pub fn requests_of(&self, thread: usize) -> Option<u64> {
        match self.extent {
            Extent::Time(_) => None,
            Extent::Count(count) => Some(share(count, thread, self.threads())),
        }
    }

    /// Raises this process's soft descriptor limit as far as needed.
    ///
    /// # Errors
    /// The hard limit is too low.
    pub fn raise_descriptor_limit(&self) -> Result<(), TooFewDescriptors> {
        // A lost connection may be open still while its successor is being opened.
        let needed = self.connections as u64 + DESCRIPTORS_SPARE;
        let resource = rustix::process::Resource::Nofile;
        let mut limit = rustix::process::getrlimit(resource);
        let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
        if enough(limit.current) {
            return Ok(());
        }
        let hard = limit.maximum;
        limit.current = Some(needed);
        if enough(hard) && rustix::process::setrlimit(resource, limit).is_ok() {
            return Ok(());
        }
        let limit = hard.unwrap_or(u64::MAX);
        let possible = limit.saturating_sub(DESCRIPTORS_SPARE);
        Err(TooFewDescriptors { connections: self.connections, needed, limit, possible })
    }
}

/// Part `index` of `parts` nearly even ones of `total`.
fn share(total: u64, index: usize, parts: usize) -> u64 {
    let (index, parts) = (index as u64, parts as u64);
    total / parts + u64::from(index < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (total, parts) in [(0, 1), (10, 3), (2, 4), (100_001, 7)] {
            let shares: Vec<u64> = (0..parts).map(|index| share(total, index, parts)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
