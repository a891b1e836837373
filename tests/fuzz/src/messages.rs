//! Messages between the engine, its funclets and the supervisor: what is taken means one thing.
//!
//! Owns: the check. Must not know: who sends what.

use faaster_protocol::funclet::{
    Claim, CodeHash, Event, Generation, LinkMessage, MESSAGE_BYTES, Placement, Request, RuntimeIndex, Size,
    SlotId, Ticket,
};

/// Each kind of message: taken and said again, it is the same; of another length it is none.
pub fn check(data: &[u8]) {
    let mut record = [0u8; MESSAGE_BYTES];
    let length = data.len().min(MESSAGE_BYTES);
    record[..length].copy_from_slice(&data[..length]);
    if let Ok(request) = Request::decode(&record) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(event) = Event::decode(&record) {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
    if let Ok(message) = LinkMessage::decode(&record) {
        assert_eq!(LinkMessage::decode(&message.encode()), Ok(message));
    }
    if data.len() != MESSAGE_BYTES {
        assert!(Request::decode(data).is_err());
        assert!(Event::decode(data).is_err());
        assert!(LinkMessage::decode(data).is_err());
    }
}

fn claim() -> Claim {
    Claim {
        ticket: Ticket(1),
        runtime: RuntimeIndex(2),
        placement: Placement::Core(1),
        code: CodeHash([7; 32]),
        account_tag: 3,
        function_tag: 4,
        memory_mb: 128,
        pids_max: 64,
        tmp_mb: 512,
        deadline_ns: u64::MAX,
        network: None,
        layers: Some(CodeHash([2; 32])),
    }
}

/// Every kind byte, and some whole messages.
pub fn seeds() -> Vec<Vec<u8>> {
    let (slot, generation) = (SlotId(3), Generation(4));
    let mut seeds: Vec<Vec<u8>> = (0..11u8).map(|kind| vec![kind; MESSAGE_BYTES]).collect();
    seeds.push(Request::Claim(claim()).encode().to_vec());
    seeds.push(Request::Kill { slot, generation }.encode().to_vec());
    seeds.push(Request::Place { slot, generation, placement: Placement::Core(1) }.encode().to_vec());
    let size = Size { memory_mb: 256, tmp_mb: 128, function_tag: 5 };
    seeds.push(Request::Resize { slot, generation, size }.encode().to_vec());
    seeds.push(Request::CancelClaim { ticket: Ticket(9) }.encode().to_vec());
    seeds.push(Event::Shortage { memory_mb: 128 }.encode().to_vec());
    seeds.push(LinkMessage::Stop { grace_ms: 5 }.encode().to_vec());
    seeds.push(vec![1; 10]);
    seeds
}
