//! Slots: whoever finishes first, answers go out in the order of the requests.

use faaster_http::{Persistence, Version};
use faaster_sys::ring::Sock;
use proptest::prelude::*;

use super::*;

fn connection() -> Connection {
    Connection::new(Sock::Direct(0), Port::Controller, 1)
}

fn open(connection: &mut Connection) -> u64 {
    connection.open_slot(Version::Http11, Persistence::KeepAlive, AnswerBody::Sent)
}

/// What the shard does with the answer of a slot.
fn answer(connection: &mut Connection, spares: &mut Spares, sequence: u64, text: &str, after: Persistence) {
    if connection.is_turn(sequence) {
        connection.outbox.staging().extend_from_slice(text.as_bytes());
        connection.front_answered(after, spares);
    } else {
        connection.keep(sequence, text.as_bytes().to_vec(), Vec::new(), after);
    }
}

fn sent(connection: &mut Connection) -> String {
    let mut all = Vec::new();
    while let Some(parcel) = connection.outbox.next() {
        let length = parcel.buffer.len();
        all.extend_from_slice(&parcel.buffer);
        connection.outbox.sent(parcel.buffer, length);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn nothing_follows_an_answer_that_closes() {
    let (mut connection, mut spares) = (connection(), Spares::new());
    let slots: Vec<u64> = (0..4).map(|_| open(&mut connection)).collect();
    answer(&mut connection, &mut spares, slots[2], "c", Persistence::KeepAlive);
    answer(&mut connection, &mut spares, slots[1], "b", Persistence::Close);
    assert_eq!(sent(&mut connection), "", "the first answer is missing");
    assert!(!connection.closing);
    answer(&mut connection, &mut spares, slots[0], "a", Persistence::KeepAlive);
    assert_eq!(sent(&mut connection), "ab");
    assert!(connection.closing);
    assert_eq!(connection.unanswered(), 0);
    assert!(connection.slot_mut(slots[3]).is_none(), "a late answer finds no slot");
}

#[test]
fn a_cut_keeps_what_stands_before_it() {
    let (mut connection, mut spares) = (connection(), Spares::new());
    let slots: Vec<u64> = (0..4).map(|_| open(&mut connection)).collect();
    let ids: Vec<Id<Call>> = (0..4).map(|n| Id::new(n, 1)).collect();
    for (slot, id) in slots.iter().zip(&ids) {
        connection.slot_mut(*slot).unwrap().call = Some(*id);
    }
    assert_eq!(connection.find_call(|call| call == ids[2]), Some(slots[2]));
    assert_eq!(connection.find_call(|call| call.index == 9), None);
    connection.input.extend_from_slice(b"GET /");
    assert_eq!(connection.cut_off(slots[2]), &ids[2..]);
    assert!(matches!(connection.reading, Reading::Lingering) && connection.input.is_empty());
    answer(&mut connection, &mut spares, slots[3], "d", Persistence::KeepAlive);
    answer(&mut connection, &mut spares, slots[1], "b", Persistence::KeepAlive);
    answer(&mut connection, &mut spares, slots[0], "a", Persistence::KeepAlive);
    assert_eq!(sent(&mut connection), "ab");
    assert_eq!(connection.unanswered(), 0);
}

proptest! {
    #[test]
    fn answers_go_out_in_the_order_of_requests(ranks in proptest::collection::vec(any::<u32>(), 1..40)) {
        let (mut connection, mut spares) = (connection(), Spares::new());
        let slots: Vec<u64> = ranks.iter().map(|_| open(&mut connection)).collect();
        let mut order: Vec<usize> = (0..ranks.len()).collect();
        order.sort_by_key(|at| ranks[*at]);
        let mut out = String::new();
        for at in order {
            answer(&mut connection, &mut spares, slots[at], &format!("{at};"), Persistence::KeepAlive);
            out.push_str(&sent(&mut connection));
        }
        let expected: String = (0..ranks.len()).map(|at| format!("{at};")).collect();
        prop_assert_eq!(out, expected);
        prop_assert_eq!(connection.unanswered(), 0);
        prop_assert!(!connection.closing);
    }
}
