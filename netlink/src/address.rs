//! Addresses of links, IPv4 and IPv6, and the subnets that addresses lie in.
//!
//! Owns: the encoding of address requests and answers, [`Subnet`]. Must not know: sockets, what addresses are used for.
//! Layout: `struct ifaddrmsg` of include/uapi/linux/if_addr.h.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::attribute::{Writer, split_body};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::link::LinkIndex;
use crate::request::{Protocol, Request};
use crate::wire::{DecodeError, FLAG_CREATE, FLAG_EXCLUSIVE};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Do not look for another owner of an IPv6 address first: it can be used at once.
const IFA_F_NODAD: u32 = 0x02;

/// Bytes of `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;

pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// The number of an address's family.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// Bits of an address of this family.
pub(crate) fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A range of addresses that agree in their first bits, `10.0.0.0/8` say.
///
/// ```
/// use faaster_netlink::Subnet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let subnet: Subnet = "10.48.0.0/16".parse()?;
/// assert!(subnet.contains("10.48.3.4".parse()?));
/// assert!(subnet.overlaps(&"10.48.128.0/17".parse()?));
/// assert_eq!(subnet.last().to_string(), "10.48.255.255");
/// // Bits behind the prefix do not matter.
/// assert_eq!(Subnet::new("10.48.3.4".parse()?, 16)?, subnet);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: IpAddr,
    prefix_bits: u8,
}

/// No subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// The text is none.
    #[error("{0:?} is no subnet: write an address, a slash and a number of bits, 10.0.0.0/8 for example")]
    Text(String),
    /// More bits than an address has.
    #[error("{address}/{prefix_bits} is no subnet: an address of its kind has {} bits", bits(*address))]
    Prefix {
        /// The address.
        address: IpAddr,
        /// The bits.
        prefix_bits: u8,
    },
}

impl Subnet {
    /// The subnet that `address` lies in; its bits behind the first `prefix_bits` do not matter.
    ///
    /// # Errors
    /// [`SubnetError::Prefix`] if an address has fewer bits.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Result<Self, SubnetError> {
        if prefix_bits > bits(address) {
            return Err(SubnetError::Prefix { address, prefix_bits });
        }
        Ok(Self::masked(address, prefix_bits))
    }

    /// The subnet of only this address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix_bits: bits(address) }
    }

    /// All addresses of IPv4.
    pub const ALL_V4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_bits: 0 };
    /// All addresses of IPv6.
    pub const ALL_V6: Self = Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix_bits: 0 };

    fn masked(address: IpAddr, prefix_bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        };
        Self { address, prefix_bits }
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Its last address.
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let tail = u32::MAX.checked_shr(u32::from(self.prefix_bits)).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) | tail).into()
            }
            IpAddr::V6(address) => {
                let tail = u128::MAX.checked_shr(u32::from(self.prefix_bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) | tail).into()
            }
        }
    }

    /// The bits that its addresses agree in.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        family(address) == family(self.address) && Self::masked(address, self.prefix_bits) == *self
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || SubnetError::Text(text.to_owned());
        let (address, prefix_bits) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        Self::new(address, prefix_bits.parse().map_err(|_| wrong())?)
    }
}

/// An address of a link.
///
/// ```no_run
/// use faaster_netlink::{Connection, LinkAddress, LinkName, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// let link = connection.link(LinkName::new("eth0")?)?.ok_or("no such link")?.index;
/// let address = LinkAddress { link, address: "192.0.2.1".parse()?, prefix_bits: 24, peer: None };
/// connection.run(&address.add())?;
/// assert!(connection.addresses(Some(link))?.contains(&address));
/// connection.run(&address.delete())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    /// The link.
    pub link: LinkIndex,
    /// The address.
    pub address: IpAddr,
    /// How many first bits make the subnet that the link reaches without a router; all bits (32, 128) for none.
    pub prefix_bits: u8,
    /// Of a link from point to point: the address at its other end.
    pub peer: Option<IpAddr>,
}

impl LinkAddress {
    /// An address that stands alone.
    pub fn host(link: LinkIndex, address: IpAddr) -> Self {
        Self { link, address, prefix_bits: bits(address), peer: None }
    }

    fn writer(&self) -> Writer {
        let mut header = [0; ADDRESS_BYTES];
        header[0] = family(self.address);
        header[1] = self.prefix_bits;
        header[4..].copy_from_slice(&self.link.get().to_ne_bytes());
        let mut writer = Writer::new();
        writer.fixed(&header).ip(IFA_LOCAL, self.address).ip(IFA_ADDRESS, self.peer.unwrap_or(self.address));
        writer
    }

    /// A request to give the link this address. IPv6 addresses can be used at once: no other owner is looked for.
    pub fn add(&self) -> Request<'static> {
        let mut writer = self.writer();
        if self.address.is_ipv6() {
            writer.u32(IFA_FLAGS, IFA_F_NODAD);
        }
        Request::new(Protocol::Route, RTM_NEWADDR, FLAG_CREATE | FLAG_EXCLUSIVE, "add an address", writer)
    }

    /// A request to take this address from the link.
    pub fn delete(&self) -> Request<'static> {
        Request::new(Protocol::Route, RTM_DELADDR, 0, "remove an address", self.writer())
    }

    /// Reads an `RTM_NEWADDR` message's body; `None` if it is of another family than IP.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fixed, attributes) = split_body::<ADDRESS_BYTES>("address", body)?;
        let [found_family, prefix_bits, _, _, i0, i1, i2, i3] = fixed;
        let link = LinkIndex::new(u32::from_ne_bytes([i0, i1, i2, i3]));
        let (mut local, mut address) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFA_LOCAL => local = Some(attribute.ip()?),
                IFA_ADDRESS => address = Some(attribute.ip()?),
                _ => {}
            }
        }
        let own = local.or(address);
        let (Some(link), Some(own)) = (link, own) else { return Ok(None) };
        if family(own) != found_family || prefix_bits > bits(own) {
            return Ok(None);
        }
        Ok(Some(Self { link, address: own, prefix_bits, peer: address.filter(|peer| *peer != own) }))
    }
}

impl Connection {
    /// All addresses of the namespace's links, or of one link.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn addresses(&mut self, link: Option<LinkIndex>) -> Result<Vec<LinkAddress>, NetlinkError> {
        let mut header = [0; ADDRESS_BYTES];
        header[0] = AF_UNSPEC;
        header[4..].copy_from_slice(&link.map_or(0, LinkIndex::get).to_ne_bytes());
        let mut writer = Writer::new();
        writer.fixed(&header);
        let request = Request::new(Protocol::Route, RTM_GETADDR, 0, "list addresses", writer);
        let found = self.dump(&request, |message| {
            if message.header.kind == RTM_NEWADDR { LinkAddress::decode(message.body) } else { Ok(None) }
        })?;
        // An adopted socket may list all links whatever is asked.
        Ok(found.into_iter().filter(|address| link.is_none_or(|link| address.link == link)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets_are_read_and_refused() {
        let subnet: Subnet = "10.1.2.3/8".parse().expect("valid");
        assert_eq!(
            (subnet.to_string().as_str(), subnet.last().to_string().as_str()),
            ("10.0.0.0/8", "10.255.255.255")
        );
        let v6: Subnet = "fd00:1::7/64".parse().expect("valid");
        assert_eq!(v6.to_string(), "fd00:1::/64");
        for wrong in
            ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/8", "a/8"]
        {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        assert!(!Subnet::ALL_V4.contains(Ipv6Addr::LOCALHOST.into()));
    }

    proptest! {
        #[test]
        fn a_subnet_holds_its_ends_and_no_more(address: u32, prefix_bits in 1_u8..=32) {
            let subnet = Subnet::new(Ipv4Addr::from(address).into(), prefix_bits).expect("at most 32 bits");
            let (IpAddr::V4(first), IpAddr::V4(last)) = (subnet.first(), subnet.last()) else { panic!("IPv4") };
            prop_assert!(subnet.contains(first.into()) && subnet.contains(last.into()));
            prop_assert_eq!(u64::from(u32::from(last)) - u64::from(u32::from(first)) + 1, 1_u64 << (32 - prefix_bits));
            if let Some(next) = u32::from(last).checked_add(1) {
                prop_assert!(!subnet.contains(Ipv4Addr::from(next).into()));
            }
            prop_assert_eq!(subnet.to_string().parse::<Subnet>(), Ok(subnet));
        }

        #[test]
        fn what_is_asked_for_is_read_back(link in 1_u32..1 << 31, own: IpAddr, prefix_bits in 0_u8..=128, peer: Option<IpAddr>) {
            let address = LinkAddress {
                link: LinkIndex::new(link).expect("in range"),
                address: own,
                prefix_bits: prefix_bits.min(bits(own)),
                peer: peer.filter(|peer| peer.is_ipv4() == own.is_ipv4() && *peer != own),
            };
            prop_assert_eq!(LinkAddress::decode(&address.add().body), Ok(Some(address)));
            prop_assert_eq!(LinkAddress::decode(&address.delete().body), Ok(Some(address)));
        }

        #[test]
        fn overlapping_is_mutual(a: u32, b: u32, bits_a in 0_u8..=32, bits_b in 0_u8..=32) {
            let [a, b] = [(a, bits_a), (b, bits_b)].map(|(address, bits)| {
                Subnet::new(Ipv4Addr::from(address).into(), bits).expect("at most 32 bits")
            });
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert_eq!(a.overlaps(&b), a.first() <= b.last() && b.first() <= a.last());
        }
    }
}
