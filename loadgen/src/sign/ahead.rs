//! Requests signed before they are due, so that signing is no part of a send.
//!
//! Owns: the requests that are ready. Must not know: how they are rendered, when they go out. A request that is the same
//! every time is signed once and again before its date is too old; of others, a few are kept ready, made while the thread
//! has nothing else to do. One that could not be made ahead is told ([`Claim::MadeNow`]), so that its time can be counted
//! as lateness of the generator.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::{Identity, Signer, hash_of};
use crate::bounds::{SIGNATURE_SECS_MAX, SIGNED_AHEAD_BYTES_MAX, SIGNED_AHEAD_MAX};
use crate::request::Sameness;

/// A request before it is signed: request line and headers without the empty line, and the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Material {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// Whether a request was ready when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Ready,
    MadeNow,
}

/// What signing took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SigningEffort {
    pub signatures: u64,
    /// Those that were made when their request was due already.
    pub in_line: u64,
    pub spent: Duration,
}

#[derive(Debug, Default)]
struct Prepared {
    material: Material,
    signed_head: Vec<u8>,
    at_secs: u64,
}

/// One thread's signed requests, in the order in which they go out.
#[derive(Debug)]
pub struct Ahead {
    signer: Signer,
    sameness: Sameness,
    /// Just one if all are the same.
    ready: VecDeque<Prepared>,
    /// Used ones, for their memory.
    spare: Vec<Prepared>,
    /// How many of those ready belong to requests that are due.
    claimed: usize,
    effort: SigningEffort,
}

impl Ahead {
    /// Nothing is ready yet.
    pub fn new(identity: Identity, sameness: Sameness) -> Self {
        let (ready, spare, effort) = (VecDeque::new(), Vec::new(), SigningEffort::default());
        Self { signer: Signer::new(identity), sameness, ready, spare, claimed: 0, effort }
    }

    /// What signing took so far.
    pub fn effort(&self) -> SigningEffort {
        self.effort
    }

    /// Whether another one should be made when there is time.
    pub fn is_short(&self) -> bool {
        let bytes = self.ready.front().map_or(0, |it| it.material.body.len() + it.signed_head.len());
        let most = match self.sameness {
            Sameness::Same => 1,
            Sameness::Varied => (SIGNED_AHEAD_BYTES_MAX / bytes.max(1)).clamp(1, SIGNED_AHEAD_MAX),
        };
        self.ready.len() < self.claimed + most
    }

    /// Makes one more; `render` fills in what is signed.
    pub fn make_one(&mut self, render: &mut dyn FnMut(&mut Material)) {
        let mut prepared = self.spare.pop().unwrap_or_default();
        prepared.material.head.clear();
        prepared.material.body.clear();
        render(&mut prepared.material);
        self.sign(&mut prepared);
        self.ready.push_back(prepared);
    }

    /// One more request is due.
    pub fn claim(&mut self, render: &mut dyn FnMut(&mut Material)) -> Claim {
        if self.sameness == Sameness::Same {
            return Claim::Ready;
        }
        self.claimed += 1;
        if self.ready.len() >= self.claimed {
            return Claim::Ready;
        }
        self.effort.in_line += 1;
        self.make_one(render);
        Claim::MadeNow
    }

    /// So many requests that were due will not go out; what was signed for them goes to the next.
    pub fn unclaim(&mut self, count: usize) {
        self.claimed = self.claimed.saturating_sub(count);
    }

    /// Signs the request that is always the same again before its date is too old.
    pub fn renew(&mut self) {
        if self.sameness == Sameness::Same
            && let Some(mut prepared) = self.ready.pop_front()
        {
            if is_stale(&prepared) {
                self.sign(&mut prepared);
            }
            self.ready.push_front(prepared);
        }
    }

    /// Hands the next request to `write`: its signed head without the empty line, and its body.
    pub fn next(&mut self, render: &mut dyn FnMut(&mut Material), write: &mut dyn FnMut(&[u8], &[u8])) {
        if self.ready.is_empty() {
            self.make_one(render);
        }
        self.claimed = self.claimed.saturating_sub(1);
        let mut prepared = self.ready.pop_front().expect("one was just made if there was none");
        if is_stale(&prepared) {
            self.effort.in_line += 1;
            self.sign(&mut prepared);
        }
        write(&prepared.signed_head, &prepared.material.body);
        match self.sameness {
            Sameness::Same => self.ready.push_front(prepared),
            Sameness::Varied => self.spare.push(prepared),
        }
    }

    fn sign(&mut self, prepared: &mut Prepared) {
        let begun = Instant::now();
        prepared.at_secs = unix_secs();
        prepared.signed_head.clear();
        let Material { head, body } = &prepared.material;
        self.signer.sign(head, &hash_of(body), prepared.at_secs, &mut prepared.signed_head);
        self.effort.signatures += 1;
        self.effort.spent += begun.elapsed();
    }
}

fn is_stale(prepared: &Prepared) -> bool {
    // A clock that was set back makes old dates future ones, which are refused as well.
    unix_secs().abs_diff(prepared.at_secs) > SIGNATURE_SECS_MAX
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::vectors::identity;
    use super::*;

    /// Requests to /0, /1, ...
    fn counting() -> impl FnMut(&mut Material) {
        let mut number = 0;
        move |material: &mut Material| {
            material.head.extend_from_slice(format!("GET /{number} HTTP/1.1\r\n").as_bytes());
            number += 1;
        }
    }

    fn taken(ahead: &mut Ahead, render: &mut dyn FnMut(&mut Material)) -> String {
        let mut out = String::new();
        ahead.next(render, &mut |head, _| out = String::from_utf8(head.to_vec()).unwrap());
        out.lines().next().unwrap().to_owned()
    }

    #[test]
    fn what_was_made_ahead_is_ready_and_keeps_its_order() {
        let mut render = counting();
        let mut ahead = Ahead::new(identity(None), Sameness::Varied);
        for _ in 0..2 {
            ahead.make_one(&mut render);
        }
        let claims: Vec<Claim> = (0..3).map(|_| ahead.claim(&mut render)).collect();
        assert_eq!(claims, [Claim::Ready, Claim::Ready, Claim::MadeNow]);
        for number in 0..3 {
            assert_eq!(taken(&mut ahead, &mut render), format!("GET /{number} HTTP/1.1"));
        }
        assert_eq!((ahead.effort.signatures, ahead.effort.in_line), (3, 1));
        // What was due and is given up leaves its signature to the next.
        ahead.make_one(&mut render);
        assert_eq!(ahead.claim(&mut render), Claim::Ready);
        ahead.unclaim(1);
        assert_eq!(ahead.claim(&mut render), Claim::Ready);
        assert_eq!(taken(&mut ahead, &mut render), "GET /3 HTTP/1.1");
    }

    #[test]
    fn no_more_are_made_than_are_kept() {
        let (mut render, mut ahead) = (counting(), Ahead::new(identity(None), Sameness::Varied));
        while ahead.is_short() {
            ahead.make_one(&mut render);
        }
        assert_eq!(ahead.ready.len(), SIGNED_AHEAD_MAX);
        ahead.claim(&mut render);
        assert!(ahead.is_short(), "one is spoken for");
    }

    #[test]
    fn a_request_that_never_changes_is_signed_once_until_its_date_is_old() {
        let (mut render, mut ahead) = (counting(), Ahead::new(identity(None), Sameness::Same));
        for _ in 0..5 {
            assert_eq!(ahead.claim(&mut render), Claim::Ready);
            assert_eq!(taken(&mut ahead, &mut render), "GET /0 HTTP/1.1");
            ahead.renew();
        }
        assert_eq!(ahead.effort.signatures, 1);
        ahead.ready[0].at_secs -= SIGNATURE_SECS_MAX + 1;
        ahead.renew();
        assert_eq!((ahead.effort.signatures, ahead.effort.in_line), (2, 0));
        ahead.ready[0].at_secs += SIGNATURE_SECS_MAX + 1;
        taken(&mut ahead, &mut render);
        assert_eq!((ahead.effort.signatures, ahead.effort.in_line), (3, 1), "a date of the future is none");
    }
}
