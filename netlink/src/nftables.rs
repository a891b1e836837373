//! nftables: tables, chains, sets, maps and rules, changed all at once or not at all.
//!
//! Owns: what the parts of a rule set are, their names, the listing of chains. Must not know: sockets, what rules are for.
//! Layout: include/uapi/linux/netfilter/nf_tables.h.
//!
//! ```no_run
//! use faaster_netlink::nftables::{
//!     Base, Chain, ChainKind, Family, Hook, LinkPattern, Policy, Rule, Sense, Table, Transaction,
//! };
//! use faaster_netlink::{Connection, Protocol};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let table = Table::new(Family::Inet, "example".parse()?);
//! let place = Base { hook: Hook::Postrouting, priority: 100, policy: Policy::Accept };
//! let chain = Chain::base(&table, &"post".parse()?, ChainKind::Nat, place);
//! let mut transaction = Transaction::new();
//! transaction.replace_table(&table);
//! transaction.add_chain(&chain);
//! let rule = Rule::new()
//!     .source("10.48.0.0/16".parse()?, Sense::Is)
//!     .link_out(&LinkPattern::prefix("fv".parse()?), Sense::IsNot)
//!     .masquerade();
//! transaction.add_rule(&chain, &rule);
//! Connection::open(Protocol::Netfilter)?.commit(&transaction)?;
//! # Ok(())
//! # }
//! ```

mod rule;
mod set;
mod transaction;

use std::fmt;
use std::str::FromStr;

pub use rule::{ConnectionState, LinkPattern, Rule, Sense, Transport, Verdict};
pub use set::{Element, ElementError, Set, SetKey, SetKind};
pub use transaction::{CommitError, Transaction};

use crate::attribute::{Attributes, Writer};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::netfilter::{self, Subsystem};
use crate::request::{Protocol, Request};
use crate::wire::DecodeError;

const NFT_MSG_GETCHAIN: u8 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

/// Bytes of a name; the kernel would take 255.
const NAME_BYTES_MAX: usize = 128;

/// The name of a table, chain, set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A name that the tool nft could not read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for a part of nftables: use a letter, then up to {more} letters, digits, -, _, . and /",
    more = NAME_BYTES_MAX - 1
)]
pub struct NameError(pub String);

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if begins_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal) {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError(name.to_owned()))
        }
    }
}

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The packets that a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Something else, by its number.
    Other(u8),
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ipv4,
            10 => Self::Ipv6,
            _ => Self::Other(number),
        }
    }
}

/// A table: what its owner's chains and sets are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The packets it sees.
    pub family: Family,
    /// Its name, unique within the family.
    pub name: Name,
}

impl Table {
    /// A table.
    pub fn new(family: Family, name: Name) -> Self {
        Self { family, name }
    }
}

/// Where on its way a packet meets a chain (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// When it came in, before its route is looked up.
    Prerouting = 0,
    /// When it is for this host.
    Input = 1,
    /// When it goes on to another.
    Forward = 2,
    /// When this host made it.
    Output = 3,
    /// When it is about to leave.
    Postrouting = 4,
}

impl Hook {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting]
            .into_iter()
            .find(|hook| *hook as u32 == number)
    }
}

/// What becomes of a packet that no rule of a chain decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is dropped (`NF_DROP`).
    Drop = 0,
    /// It goes on (`NF_ACCEPT`), to the next chain of its hook if there is one.
    Accept = 1,
}

/// Where a chain that packets meet by themselves is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The place on the packet's way.
    pub hook: Hook,
    /// Chains of one hook are met in the order of these; 0 is the usual one for filters, 100 for source NAT.
    pub priority: i32,
    /// What becomes of packets that no rule decided on.
    pub policy: Policy,
}

/// What a chain that packets meet by themselves may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let packets go on or not.
    Filter,
    /// Translate addresses. It sees only the first packet of each connection.
    Nat,
}

impl ChainKind {
    fn text(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The packets its table sees.
    pub family: Family,
    /// Its table's name.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets meet it; `None` if only rules lead to it, or it is of a family with other hooks.
    pub base: Option<Base>,
    /// What it may do with packets: "filter", "nat" or "route"; empty if only rules lead to it.
    pub kind: String,
}

impl Chain {
    /// A chain that rules lead to ([`Verdict::Jump`], [`Verdict::Goto`]).
    pub fn new(table: &Table, name: &Name) -> Self {
        Self {
            family: table.family,
            table: table.name.to_string(),
            name: name.to_string(),
            base: None,
            kind: String::new(),
        }
    }

    /// A chain that packets meet by themselves.
    pub fn base(table: &Table, name: &Name, kind: ChainKind, base: Base) -> Self {
        Self { base: Some(base), kind: kind.text().to_owned(), ..Self::new(table, name) }
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(NFTA_CHAIN_TABLE, &self.table).text(NFTA_CHAIN_NAME, &self.name);
        if let Some(base) = self.base {
            writer.nested(NFTA_CHAIN_HOOK, |hook| {
                hook.be32(NFTA_HOOK_HOOKNUM, base.hook as u32);
                hook.attribute(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
            });
            writer.be32(NFTA_CHAIN_POLICY, base.policy as u32).text(NFTA_CHAIN_TYPE, &self.kind);
        }
    }

    /// Reads an `NFT_MSG_NEWCHAIN` message's body.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (family, attributes) = netfilter::split("chain", body)?;
        let family = Family::from_number(family);
        let (mut table, mut name, mut kind) = (String::new(), String::new(), String::new());
        let (mut place, mut policy) = (None, Policy::Accept);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_CHAIN_TABLE => table = attribute.text(),
                NFTA_CHAIN_NAME => name = attribute.text(),
                NFTA_CHAIN_TYPE => kind = attribute.text(),
                NFTA_CHAIN_POLICY if attribute.be32()? == Policy::Drop as u32 => policy = Policy::Drop,
                NFTA_CHAIN_HOOK => place = decode_hook(attribute.attributes())?,
                _ => {}
            }
        }
        // Other families number their hooks in their own way.
        let place = place.filter(|_| !matches!(family, Family::Other(_)));
        let base = place.map(|(hook, priority)| Base { hook, priority, policy });
        Ok(Self { family, table, name, base, kind })
    }
}

fn decode_hook(attributes: Attributes<'_>) -> Result<Option<(Hook, i32)>, DecodeError> {
    let (mut hook, mut priority) = (None, 0);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            NFTA_HOOK_HOOKNUM => hook = Hook::from_number(attribute.be32()?),
            NFTA_HOOK_PRIORITY => priority = attribute.be32()?.cast_signed(),
            _ => {}
        }
    }
    Ok(hook.map(|hook| (hook, priority)))
}

impl Connection {
    /// All chains of the namespace, of every table and family, whoever made them: iptables in its nftables form too,
    /// iptables-legacy not.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn chains(&mut self) -> Result<Vec<Chain>, NetlinkError> {
        let kind = netfilter::kind(Subsystem::Nftables, NFT_MSG_GETCHAIN);
        let request = Request::new(Protocol::Netfilter, kind, 0, "list chains", netfilter::body(0, 0));
        self.dump(&request, |message| Chain::decode(message.body).map(Some))
    }
}
