//! The end of instances: what those who waited for one hear, and what is freed.
//!
//! Owns: the words. A caller reads FaaSter's sentence (golden case 107); what the kernel said of the end stands in the
//! function's log and in the call's tail. Must not know: why the shard ended an instance, beyond its [`Ending`].

use faaster_protocol::easyfaas::errors;
use faaster_protocol::funclet::End;
use faaster_sys::ring::Ring;

use crate::answer::{Outcome, Refused};
use crate::call::Call;
use crate::frames::keep_tail;
use crate::ingress::Payload;
use crate::instance::{Cause, Ended, Ending, Instance};
use crate::shard::Shard;
use crate::slab::Id;

impl<R: Ring> Shard<R> {
    /// Its container is gone: answers what it still owed and frees everything.
    pub(crate) fn bury(&mut self, id: Id<Instance>) {
        self.collect_log(id);
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.go(Cause::Died);
        if !instance.kill_sent {
            // Its channel ended and nobody said why: make sure that nothing is left of it.
            self.kill(id);
        }
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (index, end, ending) = (instance.function, instance.end, instance.ending);
        let (never_ready, lost) = (instance.ready_ns == 0, std::mem::take(&mut instance.in_flight));
        let deployed = instance.deployed.clone();
        let function = self.functions.get_mut(index);
        function.not_ready(id);
        function.instances.retain(|other| *other != id);
        if !lost.is_empty() {
            self.counters.instances_lost_total += 1;
        }
        if let Some(cause) = cause(end, ending)
            && (!lost.is_empty() || never_ready || ending == Ending::Unresponsive)
        {
            let line = format!("{cause}\n").into_bytes();
            for call in &lost {
                if let Some(call) = self.calls.get_mut(*call) {
                    keep_tail(call, &line);
                }
            }
            self.log(deployed, String::new(), line);
        }
        for call in lost {
            match self.calls.get(call) {
                Some(due) if due.deadline_ns <= self.now_ns => self.answer_timed_out(call),
                Some(_) => self.answer_lost(call, end),
                None => {}
            }
        }
        // Only now: a log tail asks the instance for its peak of memory.
        let mut instance = self.instances.remove(id).expect("got above");
        if let Some(lease) = instance.lease.take() {
            lease.used_until(instance.last_used_ns);
        }
        self.ring.close(instance.channel);
        self.ring.close(instance.log);
        let alone = never_ready && self.functions.get(index).ready.is_empty();
        match ending {
            Ending::NotReady if alone => self.fail_queue(index, Outcome::Refused(Refused::NotReady), b""),
            Ending::NotYet | Ending::Broken if alone => {
                while let Some(call) = self.functions.get_mut(index).queue.pop_front() {
                    self.answer_lost(call, end);
                }
            }
            _ => {}
        }
        self.functions.release_if_unused(index);
        if self.functions.try_get_mut(index).is_some() {
            self.consider_starting(index);
            self.replace_lost(&instance);
            self.keep_least(index);
        }
    }

    /// The call's process ended before it answered.
    fn answer_lost(&mut self, id: Id<Call>, end: Option<Ended>) {
        let Some(call) = self.calls.get(id) else { return };
        self.counters.invocations_failed_total += 1;
        let mut text = Vec::new();
        match end {
            Some(Ended { end: End::OutOfMemory, memory_limit_bytes, .. }) => {
                let limit_mb = u32::try_from(memory_limit_bytes >> 20).unwrap_or(u32::MAX);
                errors::append_out_of_memory(&mut text, call.request_id.as_str(), limit_mb);
            }
            _ => errors::append_exited(&mut text, call.request_id.as_str()),
        }
        self.answer(id, Outcome::FunctionError, Payload::Owned(text));
    }
}

/// What is known of an end that nobody asked for.
fn cause(end: Option<Ended>, ending: Ending) -> Option<String> {
    if ending == Ending::Broken {
        return Some("Runtime was ended: it broke the frame protocol".to_owned());
    }
    if ending == Ending::Unresponsive {
        return Some("Runtime was ended: it did not answer a health check".to_owned());
    }
    let Some(ended) = end else {
        return Some("Runtime ended together with its funclet, or closed its channel".to_owned());
    };
    match ended.end {
        End::OutOfMemory => Some(format!(
            "Runtime ran out of memory: its limit is {} MB, it used {} MB at most",
            ended.memory_limit_bytes >> 20,
            ended.memory_peak_bytes >> 20
        )),
        End::Exited(code) => Some(format!("Runtime exited with error: exit status {code}")),
        End::Signalled(signal) => Some(format!("Runtime exited with error: signal {signal}")),
        End::Killed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_nobody_asked_for_are_named() {
        let ended = |end| Some(Ended { end, memory_peak_bytes: 130 << 20, memory_limit_bytes: 128 << 20 });
        for (end, ending, words) in [
            (ended(End::OutOfMemory), Ending::NotYet, "its limit is 128 MB, it used 130 MB"),
            (ended(End::Exited(3)), Ending::NotYet, "exit status 3"),
            (ended(End::Signalled(9)), Ending::NotYet, "signal 9"),
            (ended(End::Killed), Ending::Broken, "broke the frame protocol"),
            (ended(End::Killed), Ending::Unresponsive, "did not answer a health check"),
            (None, Ending::NotYet, "funclet"),
        ] {
            let said = cause(end, ending).expect("nobody asked for it");
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(cause(ended(End::Killed), Ending::TimedOut), None);
    }
}
