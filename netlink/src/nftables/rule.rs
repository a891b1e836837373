//! Rules: what a packet is compared with, and what becomes of one that matches.
//!
//! Owns: the small programs that the kernel runs for a rule. Must not know: tables, transactions.
//! The kernel's expressions load something of a packet into a register and compare the register with something.

use std::net::IpAddr;

use super::{Name, Set};
use crate::address::{AF_INET, AF_INET6, Subnet};
use crate::attribute::Writer;
use crate::link::LinkName;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;

const NFT_REG_VERDICT: u32 = 0;
/// Registers of 16 bytes; a key of two parts lies in both.
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;
const NFT_META_MARK: u32 = 3;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
const NFT_META_IIFGROUP: u32 = 21;
const NFT_CT_STATE: u32 = 0;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_FIB_RESULT_OIF: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFTA_FIB_F_IIF: u32 = 8;
const NFTA_FIB_F_PRESENT: u32 = 32;
const RTN_LOCAL: u32 = 2;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;

/// Bytes of a link's name in a register, padded with NUL.
pub(super) const LINK_NAME_BYTES: usize = 16;
/// Bytes of a rule's comment; the kernel keeps 256 for all that is noted with a rule.
const COMMENT_BYTES_MAX: usize = 128;

/// Whether a comparison must hold or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// It must.
    Is,
    /// It must not.
    IsNot,
}

impl Sense {
    fn comparison(self) -> u32 {
        match self {
            Self::Is => NFT_CMP_EQ,
            Self::IsNot => NFT_CMP_NEQ,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, to the next chain of its hook if there is one.
    Accept,
    /// It is dropped, and its sender not told.
    Drop,
    /// The chain of this name decides; if it does not, the next rule.
    Jump(Name),
    /// The chain of this name decides; if it does not, the chain that jumped here, or the policy.
    Goto(Name),
    /// As if the chain had ended.
    Return,
}

impl Verdict {
    /// The verdict as a value (`NFTA_DATA_VERDICT` within).
    pub(super) fn write(&self, data: &mut Writer) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5_i32, None),
        };
        data.nested(NFTA_DATA_VERDICT, |verdict| {
            verdict.attribute(NFTA_VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(NFTA_VERDICT_CHAIN, chain.as_str());
            }
        });
    }
}

/// Which links are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPattern {
    /// The one of this name.
    Name(LinkName),
    /// All whose names begin so.
    Prefix(LinkName),
}

impl LinkPattern {
    /// All links whose names begin so.
    pub fn prefix(name: LinkName) -> Self {
        Self::Prefix(name)
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Name(name) => padded_name(name).to_vec(),
            // Fewer bytes than the register has compare only these.
            Self::Prefix(name) => name.as_str().as_bytes().to_vec(),
        }
    }
}

/// A link's name as it lies in a register.
pub(super) fn padded_name(name: &LinkName) -> [u8; LINK_NAME_BYTES] {
    let mut bytes = [0; LINK_NAME_BYTES];
    bytes[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    bytes
}

/// How a packet stands to the connections that the kernel keeps track of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// It belongs to one that has seen packets both ways, or comes of such a one (an ICMP error, say).
    EstablishedOrRelated = 0b110,
    /// It begins one.
    New = 0b1000,
    /// It fits nowhere.
    Invalid = 0b1,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// A rule: comparisons from left to right, and when all hold, what is done. A rule whose last step is no verdict lets
/// the packet go on to the next rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    expressions: Vec<u8>,
    comment: Option<String>,
}

impl Rule {
    /// A rule that every packet matches and that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes for people who list the rules; cut at 128 bytes.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        let mut comment = comment.replace(['"', '\0', '\n'], "'");
        let end = (0..=COMMENT_BYTES_MAX.min(comment.len())).rev().find(|end| comment.is_char_boundary(*end));
        comment.truncate(end.unwrap_or(0));
        self.comment = Some(comment);
        self
    }

    /// The packet came in by such a link.
    #[must_use]
    pub fn link_in(self, link: &LinkPattern, sense: Sense) -> Self {
        self.meta(NFT_META_IIFNAME, NFT_REG_1).compare(sense, &link.bytes())
    }

    /// The packet came in by a link of this group ([`VethEnd::group`](crate::VethEnd::group)).
    #[must_use]
    pub fn link_group_in(self, group: u32, sense: Sense) -> Self {
        self.meta(NFT_META_IIFGROUP, NFT_REG_1).compare(sense, &group.to_ne_bytes())
    }

    /// The packet leaves by such a link.
    #[must_use]
    pub fn link_out(self, link: &LinkPattern, sense: Sense) -> Self {
        self.meta(NFT_META_OIFNAME, NFT_REG_1).compare(sense, &link.bytes())
    }

    /// The packet comes from this subnet. Either way it must be of the subnet's kind, IPv4 or IPv6.
    #[must_use]
    pub fn source(self, subnet: Subnet, sense: Sense) -> Self {
        self.address(End::Source, subnet, sense)
    }

    /// The packet goes to this subnet. Either way it must be of the subnet's kind, IPv4 or IPv6.
    #[must_use]
    pub fn destination(self, subnet: Subnet, sense: Sense) -> Self {
        self.address(End::Destination, subnet, sense)
    }

    /// The packet comes from an address in the set. Either way it must be of the set's kind, IPv4 or IPv6.
    ///
    /// # Panics
    /// If the set's key is no address.
    #[must_use]
    pub fn source_in(self, set: &Set, sense: Sense) -> Self {
        let kind = set.key().address_kind(None);
        self.load_address(End::Source, kind, NFT_REG_1).lookup(set, sense)
    }

    /// The packet goes to an address in the set. Either way it must be of the set's kind, IPv4 or IPv6.
    ///
    /// # Panics
    /// If the set's key is no address.
    #[must_use]
    pub fn destination_in(self, set: &Set, sense: Sense) -> Self {
        let kind = set.key().address_kind(None);
        self.load_address(End::Destination, kind, NFT_REG_1).lookup(set, sense)
    }

    /// The link by which the packet came in and its source address are together in the set. Either way it must be of the
    /// set's kind, IPv4 or IPv6.
    ///
    /// # Panics
    /// If the set's key is not a link and an address.
    #[must_use]
    pub fn link_in_and_source_in(self, set: &Set, sense: Sense) -> Self {
        let kind = set.key().address_kind(Some(()));
        self.family(kind)
            .meta(NFT_META_IIFNAME, NFT_REG_1)
            .payload_address(End::Source, kind, NFT_REG_2)
            .lookup(set, sense)
    }

    /// The map says by the link that the packet came in by what becomes of it; nothing if the link is not in it.
    ///
    /// # Panics
    /// If the map's key is no link.
    #[must_use]
    pub fn verdict_by_link_in(self, map: &Set) -> Self {
        assert!(map.key() == super::SetKey::Link && map.kind() == super::SetKind::Verdicts, "a map by link");
        self.meta(NFT_META_IIFNAME, NFT_REG_1).expression("lookup", |lookup| {
            lookup.text(NFTA_LOOKUP_SET, map.name().as_str());
            lookup.be32(NFTA_LOOKUP_SREG, NFT_REG_1).be32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
        })
    }

    /// The answer to the packet's source would leave by the link that it came in by: its source is not forged.
    #[must_use]
    pub fn source_is_reached_by_link_in(self, sense: Sense) -> Self {
        let present: u32 = match sense {
            Sense::Is => 1,
            Sense::IsNot => 0,
        };
        self.expression("fib", |fib| {
            fib.be32(NFTA_FIB_DREG, NFT_REG_1).be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF);
            fib.be32(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT);
        })
        .compare(Sense::Is, &present.to_ne_bytes())
    }

    /// The packet goes to an address of this host.
    #[must_use]
    pub fn destination_is_local(self, sense: Sense) -> Self {
        self.expression("fib", |fib| {
            fib.be32(NFTA_FIB_DREG, NFT_REG_1).be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
            fib.be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        })
        .compare(sense, &RTN_LOCAL.to_ne_bytes())
    }

    /// The packet's connection is in this state.
    #[must_use]
    pub fn connection(self, state: ConnectionState) -> Self {
        let mask = (state as u32).to_ne_bytes();
        self.expression("ct", |ct| {
            ct.be32(NFTA_CT_DREG, NFT_REG_1).be32(NFTA_CT_KEY, NFT_CT_STATE);
        })
        .mask(&mask)
        .compare(Sense::IsNot, &[0; 4])
    }

    /// The packet has this mark.
    #[must_use]
    pub fn mark(self, mark: u32, sense: Sense) -> Self {
        self.meta(NFT_META_MARK, NFT_REG_1).compare(sense, &mark.to_ne_bytes())
    }

    /// The packet goes to this port.
    #[must_use]
    pub fn destination_port(self, transport: Transport, port: u16) -> Self {
        self.meta(NFT_META_L4PROTO, NFT_REG_1)
            .compare(Sense::Is, &[transport as u8])
            .payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1)
            .compare(Sense::Is, &port.to_be_bytes())
    }

    /// Counts the packets that come so far; `nft list ruleset` shows it.
    #[must_use]
    pub fn count(self) -> Self {
        self.expression("counter", |_| {})
    }

    /// Decides.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |immediate| {
            immediate.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            immediate.nested(NFTA_IMMEDIATE_DATA, |data| verdict.write(data));
        })
    }

    /// Drops the packet and tells its sender that it is not allowed (ICMP: administratively prohibited).
    #[must_use]
    pub fn reject(self) -> Self {
        self.expression("reject", |reject| {
            reject.be32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
            reject.u8(NFTA_REJECT_ICMP_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
        })
    }

    /// Gives the packet the source address of the link that it leaves by, and answers the way back. For chains at
    /// [`Hook::Postrouting`](super::Hook::Postrouting).
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// The rule as attributes: its expressions (`NFTA_LIST_ELEM` each), and its notes as nft writes them.
    pub(super) fn parts(&self) -> (&[u8], Option<Vec<u8>>) {
        let notes = self.comment.as_ref().map(|comment| {
            // libnftnl's own encoding: kind 0 (comment), length, text and NUL.
            let length = u8::try_from(comment.len() + 1).expect("a comment is cut at 128 bytes");
            [&[0, length], comment.as_bytes(), &[0]].concat()
        });
        (&self.expressions, notes)
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::new();
        writer.nested(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, fill);
        });
        self.expressions.extend(writer.into_bytes());
        self
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |meta| {
            meta.be32(NFTA_META_DREG, register).be32(NFTA_META_KEY, key);
        })
    }

    fn payload(self, base: u32, offset_bytes: u32, length_bytes: u32, register: u32) -> Self {
        self.expression("payload", |payload| {
            payload.be32(NFTA_PAYLOAD_DREG, register).be32(NFTA_PAYLOAD_BASE, base);
            payload.be32(NFTA_PAYLOAD_OFFSET, offset_bytes).be32(NFTA_PAYLOAD_LEN, length_bytes);
        })
    }

    fn compare(self, sense: Sense, value: &[u8]) -> Self {
        self.expression("cmp", |cmp| {
            cmp.be32(NFTA_CMP_SREG, NFT_REG_1).be32(NFTA_CMP_OP, sense.comparison());
            cmp.nested(NFTA_CMP_DATA, |data| {
                data.attribute(NFTA_DATA_VALUE, value);
            });
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).expect("masks have at most 16 bytes");
        self.expression("bitwise", |bitwise| {
            bitwise.be32(NFTA_BITWISE_SREG, NFT_REG_1).be32(NFTA_BITWISE_DREG, NFT_REG_1);
            bitwise.be32(NFTA_BITWISE_LEN, length);
            bitwise.nested(NFTA_BITWISE_MASK, |data| {
                data.attribute(NFTA_DATA_VALUE, mask);
            });
            bitwise.nested(NFTA_BITWISE_XOR, |data| {
                data.attribute(NFTA_DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn lookup(self, set: &Set, sense: Sense) -> Self {
        let flags = match sense {
            Sense::Is => 0,
            Sense::IsNot => NFT_LOOKUP_F_INV,
        };
        self.expression("lookup", |lookup| {
            lookup.text(NFTA_LOOKUP_SET, set.name().as_str()).be32(NFTA_LOOKUP_SREG, NFT_REG_1);
            lookup.be32(NFTA_LOOKUP_FLAGS, flags);
        })
    }

    fn family(self, kind: AddressKind) -> Self {
        let family = match kind {
            AddressKind::V4 => AF_INET,
            AddressKind::V6 => AF_INET6,
        };
        self.meta(NFT_META_NFPROTO, NFT_REG_1).compare(Sense::Is, &[family])
    }

    fn payload_address(self, end: End, kind: AddressKind, register: u32) -> Self {
        // Where the addresses are in the headers of RFC 791 and RFC 8200.
        let (offset, length) = match (kind, end) {
            (AddressKind::V4, End::Source) => (12, 4),
            (AddressKind::V4, End::Destination) => (16, 4),
            (AddressKind::V6, End::Source) => (8, 16),
            (AddressKind::V6, End::Destination) => (24, 16),
        };
        self.payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length, register)
    }

    fn load_address(self, end: End, kind: AddressKind, register: u32) -> Self {
        self.family(kind).payload_address(end, kind, register)
    }

    fn address(self, end: End, subnet: Subnet, sense: Sense) -> Self {
        let prefix_bits = subnet.prefix_bits();
        let (kind, value, mask) = match subnet.first() {
            IpAddr::V4(first) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
                (AddressKind::V4, first.octets().to_vec(), mask.to_be_bytes().to_vec())
            }
            IpAddr::V6(first) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
                (AddressKind::V6, first.octets().to_vec(), mask.to_be_bytes().to_vec())
            }
        };
        let loaded = self.load_address(end, kind, NFT_REG_1);
        let masked = if usize::from(prefix_bits) < 8 * value.len() { loaded.mask(&mask) } else { loaded };
        masked.compare(sense, &value)
    }
}

/// Which of a packet's addresses.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Destination,
}

/// The kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressKind {
    V4,
    V6,
}
