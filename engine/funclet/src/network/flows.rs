//! Which addresses may still have flows of a container that is gone.
//!
//! Owns: what is known of each slot's addresses. Must not know: netlink, links, threads. Pure.
//!
//! The kernel finds the flows of an address only by a walk through its whole table, 5 ms where that is made for a big
//! machine, however few flows are in it. So one walk serves everybody who was dead by then: a container that is gone, and
//! its link with it, begins no more flows. Slots are used in turn, so walks are about as rare as all numbers are many.

use std::net::IpAddr;

use super::plan::{Place, Plan};

/// Whether an earlier container's flows may be left at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traces {
    None,
    Possible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tenant {
    /// A container may live at the slot's latest addresses.
    Possible,
    /// The container before is gone, the next one has no link yet.
    None,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The last generation that had a link, or is about to get one.
    latest: u32,
    tenant: Tenant,
    /// Flows of all generations before this one are forgotten.
    forgotten_before: u32,
}

/// A funclet's slots, and how far their addresses' flows are forgotten.
#[derive(Debug)]
pub(super) struct Flows {
    plan: Plan,
    entries: Vec<Entry>,
}

impl Flows {
    /// For a funclet that has forgotten the flows of all its addresses.
    pub(super) fn new(plan: Plan) -> Self {
        let entry = Entry { latest: 0, tenant: Tenant::None, forgotten_before: 0 };
        Self { entries: vec![entry; plan.slots() as usize], plan }
    }

    /// Whether flows must be forgotten before somebody gets this place.
    pub(super) fn traces_at(&self, place: &Place) -> Traces {
        match place.generation.checked_sub(self.plan.rounds()) {
            Some(before) if before >= self.entry(place.slot).forgotten_before => Traces::Possible,
            _ => Traces::None,
        }
    }

    /// The last container of the place's slot is dead.
    pub(super) fn vacate(&mut self, place: &Place) {
        let entry = &mut self.entries[place.slot as usize];
        entry.latest = place.generation;
        entry.tenant = Tenant::None;
    }

    /// A container gets the place.
    pub(super) fn occupy(&mut self, place: &Place) {
        let entry = &mut self.entries[place.slot as usize];
        entry.latest = place.generation;
        entry.tenant = Tenant::Possible;
    }

    /// Whether an address is one of ours and belongs to no container that may be alive.
    pub(super) fn is_vacant(&self, address: IpAddr) -> bool {
        let Some((slot, round)) = self.plan.owner(address) else { return false };
        let entry = self.entry(slot);
        entry.tenant == Tenant::None || entry.latest % self.plan.rounds() != round
    }

    /// All flows of addresses that are vacant are forgotten.
    pub(super) fn forgotten(&mut self) {
        // The kernel may be about to take down the link of the last one but one; who has addresses for one round alone
        // cannot wait for it.
        let closing = self.plan.rounds().min(2) - 1;
        for entry in &mut self.entries {
            entry.forgotten_before = entry.latest.saturating_sub(closing);
        }
    }

    fn entry(&self, slot: u32) -> Entry {
        self.entries[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::config::InstanceId;
    use proptest::prelude::*;

    fn plan(subnet: &str, slots: u32) -> Plan {
        let id = InstanceId::try_from("0123abcd".to_owned()).unwrap();
        Plan::new(subnet.parse().unwrap(), Some("fd00::/64".parse().unwrap()), &id, (0, 1), slots).unwrap()
    }

    /// Gives the next container of a slot its place; whether that took a walk.
    fn next(flows: &mut Flows, place: &Place) -> Traces {
        let traces = flows.traces_at(place);
        flows.vacate(place);
        if traces == Traces::Possible {
            assert!(place.addresses().all(|address| flows.is_vacant(address)));
            flows.forgotten();
        }
        flows.occupy(place);
        traces
    }

    #[test]
    fn one_walk_serves_all_slots_for_rounds() {
        // 62 addresses for 10 slots: six rounds.
        let plan = plan("10.0.0.0/26", 10);
        let mut flows = Flows::new(plan.clone());
        let mut walks = Vec::new();
        for generation in 1..=24 {
            for slot in 0..10 {
                if next(&mut flows, &plan.place(slot, generation)) == Traces::Possible {
                    walks.push((generation, slot));
                }
            }
        }
        // Every fourth round of six: the last two before a walk may still leave something.
        assert_eq!(walks, [(6, 0), (10, 1), (14, 2), (18, 3), (22, 4)]);
    }

    #[test]
    fn living_and_foreign_addresses_are_not_vacant() {
        let plan = plan("10.0.0.0/26", 10);
        let mut flows = Flows::new(plan.clone());
        let place = plan.place(3, 8);
        assert!(place.addresses().all(|address| flows.is_vacant(address)));
        flows.occupy(&place);
        assert!(!place.addresses().any(|address| flows.is_vacant(address)));
        assert!(plan.place(3, 7).addresses().all(|address| flows.is_vacant(address)));
        for foreign in ["10.0.0.0", "10.0.0.61", "10.0.0.63", "192.0.2.1", "fd01::1"] {
            assert!(!flows.is_vacant(foreign.parse().unwrap()), "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn nobody_inherits_flows(
            slots in 1_u32..8,
            bits in 26_u8..=28,
            uses in proptest::collection::vec((any::<u32>(), 1_u32..4), 1..400),
        ) {
            let plan = plan(&format!("10.0.0.0/{bits}"), slots);
            let mut flows = Flows::new(plan.clone());
            let mut generations = HashMap::new();
            let mut living: HashMap<u32, IpAddr> = HashMap::new();
            // Every container begins a flow as soon as it has its address.
            let mut tracked: HashSet<IpAddr> = HashSet::new();
            for (slot, step) in uses {
                let slot = slot % slots;
                let generation: &mut u32 = generations.entry(slot).or_default();
                // A container may have had no link.
                *generation += step;
                let place = plan.place(slot, *generation);
                living.remove(&slot);
                let traces = flows.traces_at(&place);
                flows.vacate(&place);
                if traces == Traces::Possible {
                    tracked.retain(|address| !flows.is_vacant(*address));
                    prop_assert!(living.values().all(|address| tracked.contains(address)));
                    flows.forgotten();
                }
                flows.occupy(&place);
                let address = IpAddr::V4(place.v4);
                prop_assert!(tracked.insert(address), "{address} has an earlier container's flow");
                living.insert(slot, address);
            }
        }
    }
}
