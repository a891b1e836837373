//! Which subnet the containers get: one that nothing on the host uses.
//!
//! Owns: the candidates and the judgement of a clash. Must not know: how the host's routes are read. Pure.

use std::net::{IpAddr, Ipv4Addr};

use faaster_netlink::Subnet;

use super::Net;

/// Tried first, in this order: 10.213.0.0/16 and the following ones of 10.0.0.0/8, which others seldom take (Docker takes
/// 172.17 to 172.31 and 192.168, Kubernetes 10.96 and 10.244). Many, because each engine on a host takes one.
const FIRST_OF_10: std::ops::RangeInclusive<u8> = 213..=239;
/// Tried after these, for hosts whose private ranges are routed elsewhere as a whole: the last two are shared address space
/// (RFC 6598) and that for benchmarks (RFC 2544), which no network of the world uses.
const OTHERS: [&str; 5] =
    ["172.29.0.0/16", "172.24.0.0/16", "100.115.0.0/16", "100.93.0.0/16", "198.18.0.0/16"];

fn candidates() -> impl Iterator<Item = Subnet> {
    let of_10 = FIRST_OF_10
        .map(|second| Subnet::new(IpAddr::V4(Ipv4Addr::new(10, second, 0, 0)), 16).expect("16 of 32 bits"));
    of_10.chain(fixed(&OTHERS))
}

/// Why there is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A configured subnet is in use.
    #[error(
        "the subnet {wanted} (network_subnet) overlaps {taken}, which this host has an address in or a route to: \
         choose another, or auto"
    )]
    Clash {
        /// As configured.
        wanted: Net,
        /// By the host.
        taken: Net,
    },
    /// None of ours is free.
    #[error(
        "every subnet that is tried by itself is in use on this host: name a free one with network_subnet"
    )]
    NoneFree,
}

/// The subnet to take, and the first candidate's clash if it had to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub subnet: Subnet,
    pub instead_of: Option<(Subnet, Subnet)>,
}

/// Chooses. `taken` are all subnets that the host has addresses in or routes to; a default route is none.
///
/// # Errors
/// A configured one clashes, or all of ours do.
pub(crate) fn choose(configured: Option<Subnet>, taken: &[Subnet]) -> Result<Choice, ChoiceError> {
    let clash = |subnet: Subnet| {
        taken.iter().copied().find(|other| other.prefix_bits() > 0 && other.overlaps(&subnet))
    };
    if let Some(wanted) = configured {
        return match clash(wanted) {
            None => Ok(Choice { subnet: wanted, instead_of: None }),
            Some(taken) => Err(ChoiceError::Clash { wanted: Net(wanted), taken: Net(taken) }),
        };
    }
    let first = candidates().next().expect("there are candidates");
    let subnet = candidates().find(|subnet| clash(*subnet).is_none()).ok_or(ChoiceError::NoneFree)?;
    Ok(Choice { subnet, instead_of: clash(first).map(|taken| (first, taken)) })
}

/// Ranges that are nobody's in the world: what mode `egress` keeps closed besides the host's own networks.
const PRIVATE: [&str; 13] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/9",
];

/// What no mode opens: this host's and its link's own, link-local with the clouds' metadata services in it, and multicast.
const NEVER: [&str; 8] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/96",
    "::ffff:0:0/96",
    "fe80::/10",
    "ff00::/8",
];

/// Metadata and agents of clouds beyond link-local addresses, which no mode opens: Alibaba Cloud's, Azure's (in a public
/// range), AWS's of IPv6 and Google Cloud's. Resolvers among them are reached on their port all the same.
const METADATA: [&str; 4] = ["100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128"];

/// Multicast, which [`PRIVATE`] has no room for in its table of unicast ranges.
const MULTICAST_V6: &str = "ff00::/8";

/// Destinations that mode `egress` refuses.
pub(crate) fn closed_to_egress(host: &[Subnet], own: &[Subnet]) -> Vec<Subnet> {
    let always = fixed(&PRIVATE).chain(fixed(&METADATA)).chain(fixed(&[MULTICAST_V6]));
    without_contained(always.chain(host.iter().copied()).chain(own.iter().copied()))
}

/// Destinations that mode `full` refuses.
pub(crate) fn closed_to_all(own: &[Subnet]) -> Vec<Subnet> {
    without_contained(fixed(&NEVER).chain(fixed(&METADATA)).chain(own.iter().copied()))
}

fn fixed(texts: &'static [&'static str]) -> impl Iterator<Item = Subnet> {
    texts.iter().map(|text| text.parse().expect("the tables hold subnets"))
}

/// The kernel takes no subnet into a set that another one of it holds. A subnet of everything is none: it comes of a
/// point-to-point link with a strange mask, and would close the world.
fn without_contained(all: impl Iterator<Item = Subnet>) -> Vec<Subnet> {
    let mut all: Vec<Subnet> = all.filter(|subnet| subnet.prefix_bits() > 0).collect();
    all.sort_by_key(|subnet| (subnet.prefix_bits(), subnet.first()));
    let mut kept: Vec<Subnet> = Vec::new();
    for subnet in all {
        if !kept.iter().any(|larger| larger.contains(subnet.first())) {
            kept.push(subnet);
        }
    }
    kept
}

/// Splits by kind: IPv4, IPv6.
pub(crate) fn by_kind(subnets: Vec<Subnet>) -> (Vec<Subnet>, Vec<Subnet>) {
    subnets.into_iter().partition(|subnet| matches!(subnet.first(), IpAddr::V4(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_free_candidate_is_taken_and_the_clash_named() {
        let taken = nets(&["0.0.0.0/0", "192.0.2.0/24", "fd00::/64"]);
        let choice = choose(None, &taken).unwrap();
        assert_eq!((choice.subnet.to_string().as_str(), choice.instead_of), ("10.213.0.0/16", None));
        let choice = choose(None, &nets(&["10.213.7.1/32"])).unwrap();
        assert_eq!(choice.subnet.to_string(), "10.214.0.0/16");
        let (first, clash) = choice.instead_of.unwrap();
        assert_eq!(
            (first.to_string().as_str(), clash.to_string().as_str()),
            ("10.213.0.0/16", "10.213.7.1/32")
        );
        // A company's network that has all of the private ranges.
        let choice = choose(None, &nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])).unwrap();
        assert_eq!(choice.subnet.to_string(), "100.115.0.0/16");
        let all = nets(&["10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10", "198.18.0.0/15"]);
        assert_eq!(choose(None, &all), Err(ChoiceError::NoneFree));
    }

    #[test]
    fn a_configured_subnet_that_clashes_is_refused() {
        let wanted: Subnet = "192.168.4.0/22".parse().unwrap();
        assert_eq!(choose(Some(wanted), &nets(&["192.168.8.0/22"])).unwrap().subnet, wanted);
        let error = choose(Some(wanted), &nets(&["192.168.0.0/16"])).unwrap_err().to_string();
        assert!(
            error.starts_with("the subnet 192.168.4.0/22 (network_subnet) overlaps 192.168.0.0/16"),
            "{error}"
        );
    }

    #[test]
    fn candidates_and_tables_can_be_read() {
        assert_eq!(candidates().count(), 32);
        for subnet in candidates() {
            assert!(
                closed_to_egress(&[], &[]).iter().any(|closed| closed.contains(subnet.first())),
                "{subnet}"
            );
        }
        let closed = closed_to_egress(&nets(&["198.51.100.0/24", "10.1.0.0/16", "0.0.0.0/0"]), &[]);
        let is_closed = |text: &str| closed.iter().any(|subnet| subnet.contains(text.parse().unwrap()));
        for address in [
            "10.1.2.3",
            "192.168.1.1",
            "172.31.255.255",
            "100.64.0.1",
            "169.254.169.254",
            "198.51.100.7",
            "255.255.255.255",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::1",
            "::ffff:10.0.0.1",
            "127.0.0.1",
            "168.63.129.16",
            "fd00:ec2::254",
        ] {
            assert!(is_closed(address), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "198.51.101.1", "2001:db8::1", "223.255.255.255"] {
            assert!(!is_closed(address), "{address}");
        }
        let never = closed_to_all(&nets(&["10.213.0.0/16"]));
        let is_closed = |text: &str| never.iter().any(|subnet| subnet.contains(text.parse().unwrap()));
        assert!(is_closed("169.254.169.254") && is_closed("10.213.4.4") && is_closed("fe80::5"));
        for address in ["168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"] {
            assert!(is_closed(address), "{address}");
        }
        assert!(!is_closed("100.100.100.1") && !is_closed("fd20:ce::1") && !is_closed("168.63.129.17"));
        assert!(!is_closed("10.214.0.1") && !is_closed("192.168.1.1") && !is_closed("fd12::1"));
    }

    proptest! {
        #[test]
        fn what_is_kept_holds_all_and_does_not_overlap(seeds in proptest::collection::vec((any::<u32>(), 1_u8..=32), 0..20)) {
            let all: Vec<Subnet> = seeds
                .iter()
                .map(|(address, bits)| Subnet::new(std::net::Ipv4Addr::from(*address).into(), *bits).unwrap())
                .collect();
            let kept = without_contained(all.iter().copied());
            for subnet in &all {
                prop_assert!(kept.iter().any(|larger| larger.contains(subnet.first()) && larger.contains(subnet.last())));
            }
            for (at, one) in kept.iter().enumerate() {
                prop_assert!(kept[at + 1..].iter().all(|other| !one.overlaps(other)));
            }
        }
    }
}
