//! Neighbours: which Ethernet address an IP address on a link has (ARP's and NDP's table).
//!
//! Owns: the encoding of neighbour requests and answers. Must not know: sockets, what neighbours are used for.
//! Layout: `struct ndmsg` of include/uapi/linux/neighbour.h.

use std::net::IpAddr;

use crate::address::{AF_UNSPEC, family};
use crate::attribute::{Writer, split_body};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::link::{LinkIndex, Mac};
use crate::request::{Protocol, Request};
use crate::wire::{DecodeError, FLAG_CREATE, FLAG_REPLACE};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// Bytes of `struct ndmsg`.
const NEIGHBOUR_BYTES: usize = 12;

/// An entry of the neighbour table.
///
/// ```no_run
/// use faaster_netlink::{Connection, LinkName, Neighbour, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// let link = connection.link(LinkName::new("slot1")?)?.ok_or("no such link")?.index;
/// let entry = Neighbour::permanent(link, "10.48.0.1".parse()?, [2, 0, 0, 0, 0, 1]);
/// connection.run(&entry.set())?;
/// assert!(connection.neighbours()?.iter().any(|one| one.address == entry.address));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub link: LinkIndex,
    /// The IP address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while it is being asked for, and for links that have none.
    pub mac: Option<Mac>,
    /// Whether it was set by hand and stays; others are learnt and forgotten by the kernel.
    pub permanent: bool,
}

impl Neighbour {
    /// An entry that stays.
    pub fn permanent(link: LinkIndex, address: IpAddr, mac: Mac) -> Self {
        Self { link, address, mac: Some(mac), permanent: true }
    }

    fn writer(&self) -> Writer {
        let mut header = [0; NEIGHBOUR_BYTES];
        header[0] = family(self.address);
        header[4..8].copy_from_slice(&self.link.get().to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let mut writer = Writer::new();
        writer.fixed(&header).ip(NDA_DST, self.address);
        if let Some(mac) = &self.mac {
            writer.attribute(NDA_LLADDR, mac);
        }
        writer
    }

    /// A request to put the entry into the table for good, in place of what is there for its address.
    pub fn set(&self) -> Request<'static> {
        let flags = FLAG_CREATE | FLAG_REPLACE;
        Request::new(Protocol::Route, RTM_NEWNEIGH, flags, "set a neighbour", self.writer())
    }

    /// A request to take the entry of this link and address out of the table.
    pub fn delete(&self) -> Request<'static> {
        Request::new(Protocol::Route, RTM_DELNEIGH, 0, "remove a neighbour", self.writer())
    }

    /// Reads an `RTM_NEWNEIGH` message's body; `None` if it is of another family than IP.
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fixed, attributes) = split_body::<NEIGHBOUR_BYTES>("neighbour", body)?;
        let [found_family, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = fixed;
        let link = LinkIndex::new(u32::from_ne_bytes([i0, i1, i2, i3]));
        let (mut address, mut mac) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                // The bridge's table has Ethernet addresses here.
                NDA_DST => address = attribute.ip().ok(),
                NDA_LLADDR => mac = attribute.mac().ok(),
                _ => {}
            }
        }
        let (Some(link), Some(address)) = (link, address) else { return Ok(None) };
        let permanent = u16::from_ne_bytes([s0, s1]) & NUD_PERMANENT != 0;
        Ok((family(address) == found_family).then_some(Self { link, address, mac, permanent }))
    }
}

impl Connection {
    /// The namespace's neighbours, both families.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut header = [0; NEIGHBOUR_BYTES];
        header[0] = AF_UNSPEC;
        let mut writer = Writer::new();
        writer.fixed(&header);
        let request = Request::new(Protocol::Route, RTM_GETNEIGH, 0, "list neighbours", writer);
        self.dump(&request, |message| {
            if message.header.kind == RTM_NEWNEIGH { Neighbour::decode(message.body) } else { Ok(None) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_asked_for_is_read_back(link in 1_u32..1 << 31, address: IpAddr, mac: Mac) {
            let neighbour = Neighbour::permanent(LinkIndex::new(link).expect("in range"), address, mac);
            prop_assert_eq!(Neighbour::decode(&neighbour.set().body), Ok(Some(neighbour)));
        }
    }
}
