//! Round trips of the funclet messages.

use super::*;
use proptest::prelude::*;

fn claim() -> Claim {
    Claim {
        ticket: Ticket(3),
        runtime: RuntimeIndex(2),
        placement: Placement::Core(1),
        code: CodeHash([7; 32]),
        account_tag: 11,
        function_tag: 12,
        memory_mb: 128,
        pids_max: 64,
        tmp_mb: 512,
        deadline_ns: u64::MAX,
        network: None,
        layers: None,
    }
}

#[test]
fn requests_survive_the_wire() {
    let (slot, generation) = (SlotId(9), Generation(10));
    for request in [
        Request::Claim(claim()),
        Request::Claim(Claim { placement: Placement::Free, ..claim() }),
        Request::Claim(Claim { network: Some(NetworkMode::None), ..claim() }),
        Request::Claim(Claim { network: Some(NetworkMode::Egress), ..claim() }),
        Request::Claim(Claim { network: Some(NetworkMode::Full), ..claim() }),
        Request::Claim(Claim { layers: Some(CodeHash([8; 32])), ..claim() }),
        Request::CancelClaim { ticket: Ticket(4) },
        Request::Kill { slot, generation },
        Request::Place { slot, generation, placement: Placement::Free },
        Request::Describe,
        Request::Freeze { slot, generation },
        Request::Thaw { slot, generation },
        Request::Resize { slot, generation, size: Size { memory_mb: 1, tmp_mb: 2, function_tag: 3 } },
    ] {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
}

#[test]
fn events_survive_the_wire() {
    let (slot, generation) = (SlotId(9), Generation(10));
    let ended = |end| Event::Ended {
        slot,
        generation,
        end,
        memory_peak_bytes: 1 << 40,
        memory_limit_bytes: 5,
        cpu_used_us: 6,
    };
    let source = ClaimSource::Fresh;
    for event in [
        Event::Claimed { ticket: Ticket(1), slot, generation, pid: 77, source, claim_us: 5, attach_us: 6 },
        Event::Refused { ticket: Ticket(1), refusal: Refusal::System, errno: 13 },
        ended(End::Exited(3)),
        ended(End::Signalled(9)),
        ended(End::OutOfMemory),
        ended(End::Killed),
        Event::Shortage { memory_mb: 256 },
        Event::Slot(SlotInfo {
            slot,
            generation,
            state: SlotState::Warm,
            runtime: RuntimeIndex(1),
            function_tag: 1,
            account_tag: 2,
            pid: 3,
            memory_mb: 4,
            memory_used_bytes: 5,
            cpu_used_us: 6,
            created_ns: 7,
            claimed_ns: 8,
        }),
        Event::Node(NodeInfo {
            memory_capacity_bytes: 1,
            slots_total: 2,
            claims_refused_total: 3,
            requests_ignored_total: 4,
            ..NodeInfo::default()
        }),
        Event::Frozen { slot, generation },
        Event::Thawed { slot, generation },
        Event::NotResized { slot, generation },
        Event::Pool(PoolInfo { runtime: RuntimeIndex(1), floor: 2, target: 3, cold: 4, creating: 5 }),
    ] {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
}

#[test]
fn the_ledger_counts_whole_containers_of_the_base_size() {
    assert_eq!([1, 128, 129, 256, 300, 10_240].map(ledger_mb), [128, 128, 256, 256, 384, 10_240]);
    assert_eq!(ledger_mb(u32::MAX), u32::MAX);
}

#[test]
fn link_messages_survive_the_wire() {
    for message in [LinkMessage::Channels { peer: 1, count: 3 }, LinkMessage::Stop { grace_ms: 10_000 }] {
        assert_eq!(LinkMessage::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn foreign_bytes_are_named() {
    assert_eq!(Request::decode(&[0; 10]), Err(MessageError::Size(10)));
    assert_eq!(Request::decode(&[99; MESSAGE_BYTES]), Err(MessageError::Kind(99)));
    let mut bytes = Event::Refused { ticket: Ticket(1), refusal: Refusal::Boot, errno: 0 }.encode();
    bytes[9] = 200;
    assert_eq!(Event::decode(&bytes), Err(MessageError::Field("refusal")));
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), MESSAGE_BYTES)) {
        Request::decode(&bytes).ok();
        Event::decode(&bytes).ok();
        LinkMessage::decode(&bytes).ok();
    }
}
