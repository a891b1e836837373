//! The calls that a filter answers whatever their arguments, as a search tree in front of its other rules.
//!
//! Owns: the tree. Must not know: which calls these are.
//! seccompiler tests one call after the other. The kernel runs a new filter for every call that there is, to learn which
//! it always allows, so the time to install a chain grows with the square of its length: 0.5 ms for 240 calls.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, sock_filter};

// Of include/uapi/linux/bpf_common.h, joined: BPF_LD|BPF_W|BPF_ABS and so on.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where the number is in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
/// What every program of seccompiler's begins with: load the architecture, compare it, end the process.
const HEAD: [u16; 3] = [LOAD, JUMP_IF_EQUAL, RETURN];
/// In place of a distance that is not known yet.
const TO_THE_OTHERS: u32 = u32::MAX;

/// `others`, behind a tree that answers `calls` and leaves all else to it. `None` where `others` does not begin with a look
/// at the architecture.
pub(super) fn answering(calls: &BTreeMap<u32, SeccompAction>, others: &BpfProgram) -> Option<BpfProgram> {
    let (head, tail) = others.split_at_checked(HEAD.len())?;
    if head.iter().map(|instruction| instruction.code).ne(HEAD) {
        return None;
    }
    let mut tree = vec![plain(LOAD, NUMBER_AT)];
    tree.extend(branches(&edges(calls), Verdict::LeftToTheOthers));
    let size = tree.len();
    for (at, instruction) in tree.iter_mut().enumerate() {
        if instruction.code == JUMP && instruction.k == TO_THE_OTHERS {
            instruction.k = u32::try_from(size - at - 1).ok()?;
        }
    }
    Some([head, &tree, tail].concat())
}

/// What becomes of the numbers from an edge to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// With a `SECCOMP_RET_` value of include/uapi/linux/seccomp.h.
    Answered(u32),
    LeftToTheOthers,
}

/// Where runs of numbers with one verdict begin, in order; below the first all is left to the others.
fn edges(calls: &BTreeMap<u32, SeccompAction>) -> Vec<(u32, Verdict)> {
    let mut edges = Vec::new();
    for (call, action) in calls {
        let verdict = Verdict::Answered(action.clone().into());
        if edges.last() == Some(&(*call, Verdict::LeftToTheOthers)) {
            edges.pop();
        }
        if edges.last().is_none_or(|(_, before)| *before != verdict) {
            edges.push((*call, verdict));
        }
        edges.push((call + 1, Verdict::LeftToTheOthers));
    }
    edges
}

/// `below` is the verdict on numbers below the first edge.
fn branches(edges: &[(u32, Verdict)], below: Verdict) -> Vec<sock_filter> {
    let middle = edges.len() / 2;
    let Some((edge, from_here)) = edges.get(middle) else {
        return vec![match below {
            Verdict::Answered(value) => plain(RETURN, value),
            Verdict::LeftToTheOthers => plain(JUMP, TO_THE_OTHERS),
        }];
    };
    let lower = branches(&edges[..middle], below);
    let upper = branches(&edges[middle + 1..], *from_here);
    // A conditional jump has one byte for its distance.
    let mut out = match u8::try_from(lower.len()) {
        Ok(distance) => vec![sock_filter { code: JUMP_IF_AT_LEAST, jt: distance, jf: 0, k: *edge }],
        Err(_) => {
            let distance = u32::try_from(lower.len()).expect("a tree is shorter than its list by far");
            vec![sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: *edge }, plain(JUMP, distance)]
        }
    };
    out.extend(lower);
    out.extend(upper);
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
    fn what_is_listed_is_answered_and_all_else_is_left_to_the_others() {
        let lists: [Vec<u32>; 5] = [
            vec![],
            vec![0],
            vec![3, 4, 5, 9],
            (0..600).step_by(2).collect(),
            (0..600).filter(|call| call % 7 != 3).collect(),
        ];
        for calls in lists {
            // Neighbours with one answer and with different ones.
            let action = |call: u32| match call % 5 {
                0 | 3 => SeccompAction::Errno(call % 2 + 1),
                _ => SeccompAction::Allow,
            };
            let answers = calls.iter().map(|call| (*call, action(*call))).collect();
            let program = answering(&answers, &others()).unwrap();
            for number in (0..700).chain([u32::MAX, 0x4000_0000]) {
                let expected = if calls.contains(&number) { action(number).into() } else { OTHERS };
                assert_eq!(answer(&program, number), expected, "{number} of {calls:?}");
            }
        }
    }

    #[test]
    fn a_program_without_a_look_at_the_architecture_gets_no_tree() {
        let calls = BTreeMap::from([(1, SeccompAction::Allow)]);
        assert!(answering(&calls, &others()[1..].to_vec()).is_none());
        assert!(answering(&calls, &vec![]).is_none());
    }
}
