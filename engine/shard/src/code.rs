//! A function's code on disk: leased for each claim, asked for where it is not there.
//!
//! Owns: what this shard knows of it, per function. Must not know: why code is not there, how it comes back.
//! ```text
//! assumed -> asked -> vouched -> assumed          a claim found it missing; control brought it back; a claim took the lease
//!            asked -> assumed                     it cannot be brought back
//! ```
//! What is there is known by whoever opens it, the funclet: a claim without code is refused by it and comes back here.

use std::sync::Arc;

use faaster_function::Deployed;
use faaster_function::code_use::CodeLease;
use faaster_sys::ring::Ring;

use crate::answer::{Outcome, Refused};
use crate::api::{CodeAbsent, Notice};
use crate::functions::Presence;
use crate::shard::Shard;

/// What a shard knows of a function's code.
#[derive(Debug, Default)]
pub(crate) enum CodeState {
    /// It was there when it was needed last, or was not needed yet.
    #[default]
    Assumed,
    /// It was not there; control has been asked for it.
    Asked,
    /// It is there, and stays for as long as this lease.
    Vouched(CodeLease),
}

/// On whose word a claim counts on its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nobody's: where it is missing, it is asked for.
    Assumed,
    /// Control's: where it is missing all the same, the function cannot run.
    Vouched,
}

impl<R: Ring> Shard<R> {
    /// Takes a lease for a function's code; `None`: it has been asked for.
    pub(crate) fn lease_code(&mut self, index: u32) -> Option<(CodeLease, Word)> {
        let function = self.functions.get_mut(index);
        match std::mem::take(&mut function.code) {
            CodeState::Vouched(lease) => return Some((lease, Word::Vouched)),
            CodeState::Asked => {
                function.code = CodeState::Asked;
                return None;
            }
            CodeState::Assumed => {}
        }
        let taken = self.code_uses.take(function.deployed.code, function.deployed.layers);
        if taken.is_none() {
            // It is being removed this very moment.
            self.ask_for_code(index);
        }
        taken.map(|lease| (lease, Word::Assumed))
    }

    /// A claim was refused because its code was not there.
    pub(crate) fn miss_code(&mut self, index: u32, missed: &Deployed) {
        let function = self.functions.get(index);
        if is_same_code(&function.deployed, missed) && function.presence == Presence::Deployed {
            self.ask_for_code(index);
        }
        self.arm_queue(index);
        self.keep_least_later(index);
        self.functions.release_if_unused(index);
    }

    fn ask_for_code(&mut self, index: u32) {
        let function = self.functions.get(index);
        if matches!(function.code, CodeState::Asked) {
            return;
        }
        let notice = Notice::CodeWanted { shard: self.id, function: function.deployed.clone() };
        // Where control has no room for it now, the queue's next alarm comes here again.
        if (self.sink)(notice).is_ok() {
            self.functions.get_mut(index).code = CodeState::Asked;
        }
    }

    /// Control's answer.
    pub(crate) fn on_code(&mut self, wanted: &Arc<Deployed>, found: Result<CodeLease, CodeAbsent>) {
        let Some((index, function)) = self.functions.find(wanted.key.as_bytes()) else { return };
        // Asked for before a deploy of other code: nobody waits for it any more.
        if !is_same_code(&function.deployed, wanted) || !matches!(function.code, CodeState::Asked) {
            return;
        }
        match found {
            Ok(lease) => {
                self.functions.get_mut(index).code = CodeState::Vouched(lease);
                self.consider_starting(index);
                self.keep_least(index);
                // Nobody needs it any more: it is not held for later.
                if let Some(function) = self.functions.try_get_mut(index)
                    && matches!(function.code, CodeState::Vouched(_))
                {
                    function.code = CodeState::Assumed;
                }
            }
            Err(CodeAbsent::NoRoom) => {
                // It was looked for for as long as a call may wait; calls that came meanwhile have waited for less. Each
                // has its own deadline.
                self.functions.get_mut(index).code = CodeState::Assumed;
                self.consider_starting(index);
                self.keep_least_later(index);
            }
            Err(CodeAbsent::Missing) => {
                self.functions.get_mut(index).code = CodeState::Assumed;
                let function = self.functions.get(index);
                if function.starting == 0 && function.instances.is_empty() {
                    self.counters.invocations_throttled_total += function.queue.len() as u64;
                    self.fail_queue(index, Outcome::Refused(Refused::CodeMissing), b"");
                }
                self.keep_least_later(index);
            }
        }
    }
}

/// Whether both see the same packages.
pub(crate) fn is_same_code(one: &Deployed, other: &Deployed) -> bool {
    (one.code, one.layers) == (other.code, other.layers)
}
