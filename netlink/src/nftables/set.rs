//! Sets and maps: many addresses or links that one rule compares with at the cost of one.
//!
//! Owns: what keys and elements are, and their encoding. Must not know: rules, transactions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::{AddressKind, LINK_NAME_BYTES, Verdict, padded_name};
use super::{Family, Name, Table};
use crate::address::Subnet;
use crate::attribute::Writer;
use crate::link::LinkName;

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;

const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// `NFT_DATA_VERDICT`: a map's values are verdicts.
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

// The tool nft's own numbers of types (its datatype.h); the kernel only keeps them for it.
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_IFNAME: u32 = 41;
const TYPE_BITS: u32 = 6;
const BYTEORDER_HOST_ENDIAN: u32 = 1;
const BYTEORDER_BIG_ENDIAN: u32 = 2;
/// `NFTNL_UDATA_SET_KEYBYTEORDER` of libnftnl.
const NOTE_KEY_BYTE_ORDER: u8 = 0;

/// Elements that one message carries: well below the 64 KiB that its list may have.
pub(super) const ELEMENTS_PER_MESSAGE: usize = 256;

/// What a set's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKey {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
    /// Links.
    Link,
    /// A link and an IPv4 address.
    LinkAndV4,
    /// A link and an IPv6 address.
    LinkAndV6,
}

impl SetKey {
    fn type_number(self) -> u32 {
        match self {
            Self::V4 => TYPE_IPADDR,
            Self::V6 => TYPE_IP6ADDR,
            Self::Link => TYPE_IFNAME,
            Self::LinkAndV4 => TYPE_IFNAME << TYPE_BITS | TYPE_IPADDR,
            Self::LinkAndV6 => TYPE_IFNAME << TYPE_BITS | TYPE_IP6ADDR,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 | Self::Link => 16,
            Self::LinkAndV4 => LINK_NAME_BYTES + 4,
            Self::LinkAndV6 => LINK_NAME_BYTES + 16,
        }
    }

    /// The kind of address in the key, with a link beside it or without.
    pub(super) fn address_kind(self, link: Option<()>) -> AddressKind {
        match (self, link) {
            (Self::V4, None) | (Self::LinkAndV4, Some(())) => AddressKind::V4,
            (Self::V6, None) | (Self::LinkAndV6, Some(())) => AddressKind::V6,
            _ => panic!("a set of {self:?} is asked for something else"),
        }
    }
}

/// How a set's elements match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Each is one value.
    Values,
    /// Each is a subnet; no two may overlap. For keys that are addresses.
    Subnets,
    /// A map: each is one value and says what becomes of a packet.
    Verdicts,
}

/// One element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// An address.
    Address(IpAddr),
    /// All addresses of a subnet.
    Subnet(Subnet),
    /// A link.
    Link(LinkName),
    /// A link and an address.
    LinkAndAddress(LinkName, IpAddr),
    /// Of a map: a link, and what becomes of packets.
    LinkVerdict(LinkName, Verdict),
}

/// An element that does not fit into a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{element:?} does not fit into the set {set}, which has {kind:?} of {key:?}")]
pub struct ElementError {
    /// The element.
    pub element: Box<Element>,
    /// The set's name.
    pub set: Name,
    /// What the set's elements are.
    pub key: SetKey,
    /// How they match.
    pub kind: SetKind,
}

/// A named set or map of a table.
///
/// ```no_run
/// use faaster_netlink::nftables::{Element, Family, Set, SetKey, SetKind, Table, Transaction};
/// use faaster_netlink::{Connection, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let table = Table::new(Family::Inet, "example".parse()?);
/// let private = Set::new(&table, "private".parse()?, SetKey::V4, SetKind::Subnets);
/// let mut transaction = Transaction::new();
/// transaction.replace_table(&table);
/// transaction.add_set(&private);
/// transaction.add_elements(&private, &[Element::Subnet("10.0.0.0/8".parse()?)])?;
/// Connection::open(Protocol::Netfilter)?.commit(&transaction)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    family: Family,
    table: Name,
    name: Name,
    key: SetKey,
    kind: SetKind,
}

impl Set {
    /// A set, or a map.
    pub fn new(table: &Table, name: Name, key: SetKey, kind: SetKind) -> Self {
        Self { family: table.family, table: table.name.clone(), name, key, kind }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What its elements are.
    pub fn key(&self) -> SetKey {
        self.key
    }

    /// How they match.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// `number` is the set's own within its transaction.
    pub(super) fn write(&self, number: u32, writer: &mut Writer) {
        let flags = match self.kind {
            SetKind::Values => 0,
            SetKind::Subnets => NFT_SET_INTERVAL,
            SetKind::Verdicts => NFT_SET_MAP,
        };
        let key_bytes = u32::try_from(self.key.bytes()).expect("at most 32");
        writer.text(NFTA_SET_TABLE, self.table.as_str()).text(NFTA_SET_NAME, self.name.as_str());
        writer.be32(NFTA_SET_FLAGS, flags).be32(NFTA_SET_KEY_TYPE, self.key.type_number());
        writer.be32(NFTA_SET_KEY_LEN, key_bytes).be32(NFTA_SET_ID, number);
        let order = match self.key {
            SetKey::V4 | SetKey::V6 => Some(BYTEORDER_BIG_ENDIAN),
            SetKey::Link => Some(BYTEORDER_HOST_ENDIAN),
            SetKey::LinkAndV4 | SetKey::LinkAndV6 => None,
        };
        if let Some(order) = order {
            // Without this note, the tool nft shows the links of a map as empty.
            let note = [&[NOTE_KEY_BYTE_ORDER, 4][..], &order.to_ne_bytes()].concat();
            writer.attribute(NFTA_SET_USERDATA, &note);
        }
        if self.kind == SetKind::Verdicts {
            writer.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT).be32(NFTA_SET_DATA_LEN, 0);
        }
    }

    /// A message's worth of elements.
    pub(super) fn write_elements(
        &self,
        elements: &[Element],
        writer: &mut Writer,
    ) -> Result<(), ElementError> {
        writer.text(NFTA_SET_ELEM_LIST_TABLE, self.table.as_str());
        writer.text(NFTA_SET_ELEM_LIST_SET, self.name.as_str());
        let mut result = Ok(());
        writer.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            result = elements.iter().try_for_each(|element| self.write_element(element, list));
        });
        result
    }

    fn write_element(&self, element: &Element, list: &mut Writer) -> Result<(), ElementError> {
        let wrong = || ElementError {
            element: Box::new(element.clone()),
            set: self.name.clone(),
            key: self.key,
            kind: self.kind,
        };
        match (self.kind, element) {
            (SetKind::Values, Element::Address(address)) => {
                entry(list, &octets(*address), 0, None);
                self.fits(octets(*address).len(), matches!(self.key, SetKey::V4 | SetKey::V6))
                    .ok_or_else(wrong)
            }
            (SetKind::Values, Element::Link(link)) => {
                entry(list, &padded_name(link), 0, None);
                self.fits(LINK_NAME_BYTES, self.key == SetKey::Link).ok_or_else(wrong)
            }
            (SetKind::Values, Element::LinkAndAddress(link, address)) => {
                let key = [&padded_name(link)[..], &octets(*address)].concat();
                entry(list, &key, 0, None);
                self.fits(key.len(), matches!(self.key, SetKey::LinkAndV4 | SetKey::LinkAndV6))
                    .ok_or_else(wrong)
            }
            (SetKind::Verdicts, Element::LinkVerdict(link, verdict)) => {
                entry(list, &padded_name(link), 0, Some(verdict));
                self.fits(LINK_NAME_BYTES, self.key == SetKey::Link).ok_or_else(wrong)
            }
            (SetKind::Subnets, Element::Subnet(subnet)) => {
                entry(list, &octets(subnet.first()), 0, None);
                // Behind the last address of all, nothing begins that would have to be told apart.
                if let Some(next) = following(subnet.last()) {
                    entry(list, &octets(next), NFT_SET_ELEM_INTERVAL_END, None);
                }
                let bytes = octets(subnet.first()).len();
                self.fits(bytes, matches!(self.key, SetKey::V4 | SetKey::V6)).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    fn fits(&self, bytes: usize, key_fits: bool) -> Option<()> {
        (key_fits && bytes == self.key.bytes()).then_some(())
    }
}

fn entry(list: &mut Writer, key: &[u8], flags: u32, verdict: Option<&Verdict>) {
    list.nested(NFTA_LIST_ELEM, |element| {
        element.nested(NFTA_SET_ELEM_KEY, |data| {
            data.attribute(NFTA_DATA_VALUE, key);
        });
        if flags != 0 {
            element.be32(NFTA_SET_ELEM_FLAGS, flags);
        }
        if let Some(verdict) = verdict {
            element.nested(NFTA_SET_ELEM_DATA, |data| verdict.write(data));
        }
    });
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn following(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add(1)?).into(),
    })
}
