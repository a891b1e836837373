//! The calls that a filter allows whatever their arguments, as a search tree in front of its other rules.
//!
//! Owns: the tree. Must not know: which calls these are.
//! seccompiler tests one call after the other. The kernel runs a new filter for every call that there is, to learn which
//! it always allows, so the time to install a chain grows with the square of its length: 0.5 ms for 240 calls.

use seccompiler::{BpfProgram, sock_filter};

// Of include/uapi/linux/bpf_common.h, joined: BPF_LD|BPF_W|BPF_ABS and so on.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// SECCOMP_RET_ALLOW of include/uapi/linux/seccomp.h.
const ALLOW: u32 = 0x7fff_0000;
/// Where the number is in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
/// What every program of seccompiler's begins with: load the architecture, compare it, end the process.
const HEAD: [u16; 3] = [LOAD, JUMP_IF_EQUAL, RETURN];
/// In place of a distance that is not known yet.
const TO_THE_OTHERS: u32 = u32::MAX;

/// `others`, behind a tree that allows `calls` and leaves all else to it. `None` where `others` does not begin with a look
/// at the architecture.
pub(super) fn allowing(mut calls: Vec<u32>, others: &BpfProgram) -> Option<BpfProgram> {
    let (head, tail) = others.split_at_checked(HEAD.len())?;
    if head.iter().map(|instruction| instruction.code).ne(HEAD) {
        return None;
    }
    calls.sort_unstable();
    calls.dedup();
    let mut tree = vec![plain(LOAD, NUMBER_AT)];
    tree.extend(branches(&edges(&calls), Side::Refused));
    let size = tree.len();
    for (at, instruction) in tree.iter_mut().enumerate() {
        if instruction.code == JUMP && instruction.k == TO_THE_OTHERS {
            instruction.k = u32::try_from(size - at - 1).ok()?;
        }
    }
    Some([head, &tree, tail].concat())
}

/// Whether numbers from here to the next edge are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Allowed,
    Refused,
}

impl Side {
    /// After so many edges.
    fn after(self, edges: usize) -> Self {
        match (self, edges % 2) {
            (side, 0) => side,
            (Self::Allowed, _) => Self::Refused,
            (Self::Refused, _) => Self::Allowed,
        }
    }
}

/// Where runs of allowed numbers begin and where they have ended, in turn.
fn edges(calls: &[u32]) -> Vec<u32> {
    let mut edges = Vec::new();
    for call in calls {
        if edges.last() == Some(call) {
            edges.pop();
        } else {
            edges.push(*call);
        }
        edges.push(call + 1);
    }
    edges
}

/// `side` is that of numbers below the first edge.
fn branches(edges: &[u32], side: Side) -> Vec<sock_filter> {
    let middle = edges.len() / 2;
    let Some(edge) = edges.get(middle) else {
        return vec![match side {
            Side::Allowed => plain(RETURN, ALLOW),
            Side::Refused => plain(JUMP, TO_THE_OTHERS),
        }];
    };
    let below = branches(&edges[..middle], side);
    let rest = branches(&edges[middle + 1..], side.after(middle + 1));
    // A conditional jump has one byte for its distance.
    let mut out = match u8::try_from(below.len()) {
        Ok(distance) => vec![sock_filter { code: JUMP_IF_AT_LEAST, jt: distance, jf: 0, k: *edge }],
        Err(_) => {
            let distance = u32::try_from(below.len()).expect("a tree is shorter than its list by far");
            vec![sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: *edge }, plain(JUMP, distance)]
        }
    };
    out.extend(below);
    out.extend(rest);
    out
}

fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: u32 = 0x0005_0001;

    /// What a program answers to a call: only the instructions that these have.
    fn answer(program: &BpfProgram, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD => loaded = if k == NUMBER_AT { number } else { 7 },
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += usize::from(if loaded == k { jt } else { jf }),
                JUMP_IF_AT_LEAST => at += usize::from(if loaded >= k { jt } else { jf }),
                RETURN => return k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn others() -> BpfProgram {
        let compare = sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: 7 };
        vec![plain(LOAD, 4), compare, plain(RETURN, 0), plain(LOAD, NUMBER_AT), plain(RETURN, OTHERS)]
    }

    #[test]
    fn what_is_listed_is_allowed_and_all_else_is_left_to_the_others() {
        let lists: [Vec<u32>; 5] = [
            vec![],
            vec![0],
            vec![5, 3, 4, 3, 9],
            (0..600).step_by(2).collect(),
            (0..600).filter(|call| call % 7 != 3).collect(),
        ];
        for calls in lists {
            let program = allowing(calls.clone(), &others()).unwrap();
            for number in (0..700).chain([u32::MAX, 0x4000_0000]) {
                let expected = if calls.contains(&number) { ALLOW } else { OTHERS };
                assert_eq!(answer(&program, number), expected, "{number} of {calls:?}");
            }
        }
    }

    #[test]
    fn a_program_without_a_look_at_the_architecture_gets_no_tree() {
        assert!(allowing(vec![1], &others()[1..].to_vec()).is_none());
        assert!(allowing(vec![1], &vec![]).is_none());
    }
}
