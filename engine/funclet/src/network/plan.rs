//! Who gets which address, link name and Ethernet address.
//!
//! Owns: the arithmetic. Must not know: the kernel, containers' lives. Pure.
//!
//! Every container has a number: its slot, and how often the slot was used. A number stands for one IPv4 address, one IPv6
//! address, one link name and one Ethernet address. So living containers never share any of them, and a number comes
//! back only after a slot has been used as often as the subnet has room for all slots: by then the kernel has long
//! removed the last link of this name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use faaster_netlink::{LinkName, Mac, Subnet};

use crate::config::InstanceId;

/// How the names of all containers' links begin, whichever engine on this host made them.
pub(crate) const LINK_PREFIX: &str = "faas";
/// Digits of a number in a link's name, base 36: eight of the instance, these, and the prefix are the 15 that a name has.
const NUMBER_DIGITS: usize = 3;
const NUMBERS_MAX: u32 = 36 * 36 * 36;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What a container's link is called inside.
pub(crate) const INNER_NAME: &str = "eth0";
/// The router that containers send everything to. No link has these addresses: a fixed neighbour entry says whose they are.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// See [`GATEWAY_V4`].
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// Of the host's end of every pair; each pair is a segment of its own. Locally administered.
pub(crate) const OUTER_MAC: Mac = [0x02, 0xfa, 0xa5, 0xff, 0xff, 0x01];

/// The subnet has fewer addresses than there can be containers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the subnet {subnet} has {room} addresses for containers, and {slots} containers need one each")]
pub struct PlanError {
    subnet: Subnet,
    room: u32,
    slots: u32,
}

/// One funclet's part of the addresses.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// `faas` and the instance.
    prefix: String,
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
    slots: u32,
    /// How often a slot can be used before its numbers come back.
    rounds: u32,
    /// The first number.
    base: u32,
}

/// What one container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub slot: u32,
    /// How often the slot was used.
    pub generation: u32,
    /// Of the host's end.
    pub name: LinkName,
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
    /// Of the container's end.
    pub mac: Mac,
}

impl Place {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6))
    }
}

/// Addresses of a subnet that containers can have: all but the first and the last.
fn room(v4: Subnet) -> u32 {
    let bits = 32 - u32::from(v4.prefix_bits().min(32));
    1_u32.checked_shl(bits).unwrap_or(u32::MAX).saturating_sub(2)
}

/// Checks that `slots` containers, divided among funclets, fit.
///
/// # Errors
/// They do not.
pub(crate) fn check_room(v4: Subnet, slots: u32) -> Result<(), PlanError> {
    let room = room(v4);
    if slots <= room.min(NUMBERS_MAX) { Ok(()) } else { Err(PlanError { subnet: v4, room, slots }) }
}

/// How the names of an instance's links begin.
pub(crate) fn link_prefix(instance: &InstanceId) -> String {
    format!("{LINK_PREFIX}{instance}")
}

impl Plan {
    /// The part of funclet `index` of `count`, each with `slots` slots.
    ///
    /// # Errors
    /// There is no room for them all.
    pub(crate) fn new(
        v4: Subnet,
        v6: Option<Subnet>,
        instance: &InstanceId,
        (index, count): (u16, u16),
        slots: u32,
    ) -> Result<Self, PlanError> {
        let all = slots.saturating_mul(u32::from(count));
        check_room(v4, all)?;
        let part = room(v4).min(NUMBERS_MAX) / u32::from(count);
        let IpAddr::V4(first) = v4.first() else { unreachable!("the configuration's type is IPv4 here") };
        let first_v6 = v6.and_then(|subnet| match subnet.first() {
            IpAddr::V6(first) => Some(first),
            IpAddr::V4(_) => None,
        });
        Ok(Self {
            prefix: link_prefix(instance),
            v4: first,
            v6: first_v6,
            slots,
            rounds: (part / slots).max(1),
            base: u32::from(index) * part,
        })
    }

    /// What the container of a slot gets that is used for the `generation`th time.
    pub(crate) fn place(&self, slot: u32, generation: u32) -> Place {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        let number = self.base + generation % self.rounds * self.slots + slot;
        let [_, _, high, low] = number.to_be_bytes();
        Place {
            slot,
            generation,
            name: LinkName::new(&format!("{}{}", self.prefix, base36(number)))
                .expect("letters and digits, 15 in all"),
            v4: Ipv4Addr::from(u32::from(self.v4) + 1 + number),
            v6: self.v6.map(|first| Ipv6Addr::from(u128::from(first) + 1 + u128::from(number))),
            mac: [0x02, 0xfa, 0xa5, 0x00, high, low],
        }
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// How often a slot can be used before its numbers come back; at least 1.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The slot that has an address, and in which of its rounds.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<(u32, u32)> {
        let offset = match (address, self.v6) {
            (IpAddr::V4(address), _) => {
                u128::from(u32::from(address)).checked_sub(u128::from(u32::from(self.v4)) + 1)
            }
            (IpAddr::V6(address), Some(first)) => u128::from(address).checked_sub(u128::from(first) + 1),
            (IpAddr::V6(_), None) => None,
        };
        let number = u32::try_from(offset?).ok()?.checked_sub(self.base)?;
        (number < self.rounds * self.slots).then_some((number % self.slots, number / self.slots))
    }
}

fn base36(number: u32) -> String {
    let mut digits = [b'0'; NUMBER_DIGITS];
    let mut rest = number % NUMBERS_MAX;
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 36) as usize];
        rest /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    fn id() -> InstanceId {
        InstanceId::try_from("0123abcd".to_owned()).unwrap()
    }

    fn net(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_what_it_always_was() {
        let plan = Plan::new(net("10.213.0.0/16"), Some(net("fd00::/64")), &id(), (1, 2), 500).unwrap();
        let place = plan.place(7, 3);
        assert_eq!(place.name.as_str(), "faas0123abcdj5v");
        assert_eq!(place.v4.to_string(), "10.213.97.4");
        assert_eq!(place.v6.unwrap().to_string(), "fd00::6104");
        assert_eq!(place.mac, [0x02, 0xfa, 0xa5, 0, 0x61, 0x03]);
        assert!(place.addresses().all(|address| plan.owner(address).is_some()));
        assert!(plan.owner("10.213.0.1".parse().unwrap()).is_none(), "the other funclet's");
        let generation = 3 + plan.rounds;
        assert_eq!(plan.place(7, generation), Place { generation, ..place });
    }

    #[test]
    fn a_subnet_must_have_room() {
        assert!(check_room(net("10.0.0.0/24"), 254).is_ok());
        let error = check_room(net("10.0.0.0/24"), 255).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the subnet 10.0.0.0/24 has 254 addresses for containers, and 255 containers need one each"
        );
        assert!(Plan::new(net("10.0.0.0/24"), None, &id(), (0, 2), 128).is_err());
        assert!(check_room(net("0.0.0.0/0"), 3000).is_ok());
    }

    proptest! {
        #[test]
        fn living_containers_share_nothing(
            slots in 1_u32..64,
            count in 1_u16..5,
            bits in 16_u8..24,
            generations in proptest::collection::vec(any::<u32>(), 64 * 5),
        ) {
            let subnet = Subnet::new("10.200.0.0".parse().unwrap(), bits).unwrap();
            let (mut addresses, mut names) = (HashSet::new(), HashSet::new());
            for index in 0..count {
                let plan = Plan::new(subnet, Some(net("fd00::/64")), &id(), (index, count), slots).unwrap();
                for slot in 0..slots {
                    let place = plan.place(slot, generations[usize::from(index) * 64 + slot as usize]);
                    prop_assert!(subnet.contains(place.v4.into()));
                    prop_assert!(place.v4 != subnet.first() && place.v4 != subnet.last());
                    let round = place.generation % plan.rounds;
                    for address in place.addresses() {
                        prop_assert_eq!(plan.owner(address), Some((slot, round)));
                    }
                    prop_assert!(addresses.insert(place.v4) && names.insert(place.name));
                }
            }
        }
    }
}
