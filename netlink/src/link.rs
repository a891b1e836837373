//! Links, which others call interfaces: veth pairs made and links changed, removed and listed with their counters.
//!
//! Owns: the encoding of link requests and answers. Must not know: sockets, what links are used for.
//! Layout: `struct ifinfomsg`, include/uapi/linux/if_link.h, include/uapi/linux/veth.h.

use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use crate::attribute::{Attribute, Attributes, Writer, split_body};
use crate::connection::Connection;
use crate::error::{KernelError, NetlinkError};
use crate::request::{Protocol, Request};
use crate::wire::{DecodeError, FLAG_CREATE, FLAG_EXCLUSIVE, Message};

pub(crate) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const AF_INET6: u16 = 10;
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_FORWARDING` of include/uapi/linux/ip.h.
const IPV4_DEVCONF_FORWARDING: u16 = 1;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_LOWER_UP: u32 = 0x1_0000;

/// Bytes of `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
/// Bytes of a link's name, without the NUL (`IFNAMSIZ`).
const NAME_BYTES_MAX: usize = 15;

/// A link's number within its network namespace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(NonZeroU32);

impl LinkIndex {
    /// The link of this number; `None` for 0 and for what the kernel's signed number cannot hold.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).filter(|number| i32::try_from(number.get()).is_ok()).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that a link can have (`dev_valid_name` of the kernel, and no `%`, which asks it to number the link).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

/// A name that no link can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for a link: use 1 to {NAME_BYTES_MAX} printable ASCII characters without space, /, : and %, and not . or .."
)]
pub struct LinkNameError(pub String);

impl LinkName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`LinkNameError`] says what a name may be.
    pub fn new(name: &str) -> Result<Self, LinkNameError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name != "." && name != "..";
        let legal = name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
        if fits && legal { Ok(Self(name.to_owned())) } else { Err(LinkNameError(name.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which link is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkId {
    /// The one of this number.
    Index(LinkIndex),
    /// The one of this name.
    Name(LinkName),
}

impl From<LinkIndex> for LinkId {
    fn from(index: LinkIndex) -> Self {
        Self::Index(index)
    }
}

impl From<LinkName> for LinkId {
    fn from(name: LinkName) -> Self {
        Self::Name(name)
    }
}

impl From<&LinkName> for LinkId {
    fn from(name: &LinkName) -> Self {
        Self::Name(name.clone())
    }
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Whether a link carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It does (`IFF_UP`).
    Up,
    /// It does not.
    Down,
}

/// Whether the kernel gives a link an IPv6 address of its own (fe80::...) when it comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkLocal {
    /// It does, where IPv6 is on. The default.
    Automatic,
    /// It does not (`IN6_ADDR_GEN_MODE_NONE`).
    None,
}

/// Whether packets that come in by a link may go on to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// They may.
    On,
    /// They may not: only what is for this host is taken.
    Off,
}

/// What can be set of a link, new or old.
#[derive(Debug, Clone, Default)]
struct Settings<'fd> {
    /// The number of a link that is to be made; the kernel chooses one without.
    index: Option<LinkIndex>,
    /// Of a link that is to be made.
    queues: Option<NonZeroU32>,
    name: Option<LinkName>,
    state: Option<LinkState>,
    mtu_bytes: Option<u32>,
    mac: Option<Mac>,
    namespace: Option<BorrowedFd<'fd>>,
    link_local: Option<LinkLocal>,
    group: Option<u32>,
    forwarding_v4: Option<Forwarding>,
}

impl Settings<'_> {
    fn write(&self, index: Option<LinkIndex>, writer: &mut Writer) {
        let (flags, change) = match self.state {
            Some(LinkState::Up) => (IFF_UP, IFF_UP),
            Some(LinkState::Down) => (0, IFF_UP),
            None => (0, 0),
        };
        write_header(index, flags, change, writer);
        if let Some(name) = &self.name {
            writer.text(IFLA_IFNAME, name.as_str());
        }
        if let Some(mtu_bytes) = self.mtu_bytes {
            writer.u32(IFLA_MTU, mtu_bytes);
        }
        if let Some(queues) = self.queues {
            writer.u32(IFLA_NUM_TX_QUEUES, queues.get()).u32(IFLA_NUM_RX_QUEUES, queues.get());
        }
        if let Some(mac) = &self.mac {
            writer.attribute(IFLA_ADDRESS, mac);
        }
        if let Some(namespace) = self.namespace {
            writer.i32(IFLA_NET_NS_FD, namespace.as_raw_fd());
        }
        if let Some(group) = self.group {
            writer.u32(IFLA_GROUP, group);
        }
        let quiet = self.link_local == Some(LinkLocal::None);
        if !quiet && self.forwarding_v4.is_none() {
            return;
        }
        writer.nested(IFLA_AF_SPEC, |families| {
            if let Some(forwarding) = self.forwarding_v4 {
                families.nested(AF_INET, |v4| {
                    v4.nested(IFLA_INET_CONF, |settings| {
                        settings.u32(IPV4_DEVCONF_FORWARDING, u32::from(forwarding == Forwarding::On));
                    });
                });
            }
            if quiet {
                families.nested(AF_INET6, |v6| {
                    v6.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
                });
            }
        });
    }
}

fn write_header(index: Option<LinkIndex>, flags: u32, change: u32, writer: &mut Writer) {
    let mut header = [0; LINK_BYTES];
    header[4..8].copy_from_slice(&index.map_or(0, LinkIndex::get).to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    writer.fixed(&header);
}

/// One end of a veth pair that is to be made.
#[derive(Debug, Clone)]
pub struct VethEnd<'fd>(Settings<'fd>);

impl<'fd> VethEnd<'fd> {
    /// An end of this name, down, in the connection's namespace.
    pub fn new(name: LinkName) -> Self {
        Self(Settings { name: Some(name), ..Settings::default() })
    }

    /// Puts the end into this network namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: BorrowedFd<'fd>) -> Self {
        self.0.namespace = Some(namespace);
        self
    }

    /// Makes it up or down.
    #[must_use]
    pub fn state(mut self, state: LinkState) -> Self {
        self.0.state = Some(state);
        self
    }

    /// Sets the largest packet that it takes, in bytes.
    #[must_use]
    pub fn mtu_bytes(mut self, mtu_bytes: u32) -> Self {
        self.0.mtu_bytes = Some(mtu_bytes);
        self
    }

    /// Sets its Ethernet address; without, the kernel takes a random one.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.0.mac = Some(mac);
        self
    }

    /// Gives the end this number, which must be free in its namespace (`EEXIST`). What is numbered beforehand can get its
    /// addresses and routes in the same send.
    #[must_use]
    pub fn index(mut self, index: LinkIndex) -> Self {
        self.0.index = Some(index);
        self
    }

    /// The group that the link is in, a number that rules can match; 0 unless said.
    #[must_use]
    pub fn group(mut self, group: u32) -> Self {
        self.0.group = Some(group);
        self
    }

    /// Gives it this many queues in either direction, for good. Unless said, the kernel makes one for each processor that
    /// the machine may ever have, and then puts all but one out of use, which costs time and memory.
    #[must_use]
    pub fn queues(mut self, queues: NonZeroU32) -> Self {
        self.0.queues = Some(queues);
        self
    }

    fn write(&self, writer: &mut Writer) {
        self.0.write(self.0.index, writer);
    }
}

/// A request to make a veth pair: two Ethernet links, what goes into one comes out of the other. One of them, or both,
/// can be born in another namespace, which costs less than moving it there.
///
/// ```no_run
/// use std::os::fd::AsFd;
/// use faaster_netlink::{Connection, LinkName, LinkState, Protocol, VethEnd, create_veth};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let container = std::fs::File::open("/proc/4711/ns/net")?;
/// let near = VethEnd::new(LinkName::new("slot1")?).state(LinkState::Up).mtu_bytes(1400);
/// let far = VethEnd::new(LinkName::new("eth0")?).namespace(container.as_fd());
/// Connection::open(Protocol::Route)?.run(&create_veth(&near, &far))?;
/// # Ok(())
/// # }
/// ```
pub fn create_veth<'fd>(near: &VethEnd<'fd>, far: &VethEnd<'fd>) -> Request<'fd> {
    let mut writer = Writer::new();
    near.write(&mut writer);
    writer.nested(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "veth");
        info.nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| far.write(peer));
        });
    });
    Request::new(Protocol::Route, RTM_NEWLINK, FLAG_CREATE | FLAG_EXCLUSIVE, "create a veth pair", writer)
}

/// A change of a link that exists.
///
/// ```no_run
/// use faaster_netlink::{Connection, LinkChange, LinkName, LinkState, Protocol};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = Connection::open(Protocol::Route)?;
/// let link = connection.link(LinkName::new("eth0")?)?.ok_or("no such link")?;
/// let change = LinkChange::new(link.index).name(LinkName::new("uplink")?).state(LinkState::Up);
/// connection.run(&change.request())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LinkChange<'fd> {
    link: LinkId,
    settings: Settings<'fd>,
}

impl<'fd> LinkChange<'fd> {
    /// A change of nothing yet.
    pub fn new(link: impl Into<LinkId>) -> Self {
        Self { link: link.into(), settings: Settings::default() }
    }

    /// Makes it up or down.
    #[must_use]
    pub fn state(mut self, state: LinkState) -> Self {
        self.settings.state = Some(state);
        self
    }

    /// Sets the largest packet that it takes, in bytes.
    #[must_use]
    pub fn mtu_bytes(mut self, mtu_bytes: u32) -> Self {
        self.settings.mtu_bytes = Some(mtu_bytes);
        self
    }

    /// Sets its Ethernet address.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.settings.mac = Some(mac);
        self
    }

    /// Gives it another name. It must be known by its number then ([`LinkId::Index`]), and be down on kernels before 6.2.
    #[must_use]
    pub fn name(mut self, name: LinkName) -> Self {
        self.settings.name = Some(name);
        self
    }

    /// Moves it into this network namespace, where it is down and has no addresses.
    #[must_use]
    pub fn namespace(mut self, namespace: BorrowedFd<'fd>) -> Self {
        self.settings.namespace = Some(namespace);
        self
    }

    /// Sets whether it gets an IPv6 address of its own when it comes up next. The kernel knows this of a link only
    /// where IPv6 is on, and refuses it else.
    #[must_use]
    pub fn link_local(mut self, link_local: LinkLocal) -> Self {
        self.settings.link_local = Some(link_local);
        self
    }

    /// The group that the link is in, a number that rules can match.
    #[must_use]
    pub fn group(mut self, group: u32) -> Self {
        self.settings.group = Some(group);
        self
    }

    /// Whether IPv4 packets that come in by the link may go on to another (`net.ipv4.conf.<link>.forwarding`).
    #[must_use]
    pub fn forwarding_v4(mut self, forwarding: Forwarding) -> Self {
        self.settings.forwarding_v4 = Some(forwarding);
        self
    }

    /// The request.
    pub fn request(&self) -> Request<'fd> {
        let mut writer = Writer::new();
        match &self.link {
            LinkId::Index(index) => self.settings.write(Some(*index), &mut writer),
            LinkId::Name(name) => {
                // By name, the name attribute says which link is meant.
                let settings = Settings { name: Some(name.clone()), ..self.settings.clone() };
                settings.write(None, &mut writer);
            }
        }
        Request::new(Protocol::Route, RTM_SETLINK, 0, "change a link", writer)
    }
}

/// A request to remove a link. It takes the kernel some 20 ms, during which no other link can be changed; of a veth pair
/// both ends go. Many links are removed faster by ending the namespace that holds their other ends.
pub fn delete_link(link: impl Into<LinkId>) -> Request<'static> {
    Request::new(Protocol::Route, RTM_DELLINK, 0, "remove a link", selector(&link.into()))
}

fn selector(link: &LinkId) -> Writer {
    let mut writer = Writer::new();
    match link {
        LinkId::Index(index) => write_header(Some(*index), 0, 0, &mut writer),
        LinkId::Name(name) => {
            write_header(None, 0, 0, &mut writer);
            writer.text(IFLA_IFNAME, name.as_str());
        }
    }
    writer
}

/// What a link has carried since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received broken.
    pub receive_errors: u64,
    /// Packets that could not be sent.
    pub send_errors: u64,
    /// Packets received and dropped for want of room.
    pub receive_dropped: u64,
    /// Packets to be sent and dropped for want of room.
    pub send_dropped: u64,
}

impl LinkStatistics {
    /// Reads the counters; the kernel adds new ones at the end from time to time.
    fn decode(attribute: &Attribute<'_>) -> Result<Self, DecodeError> {
        let mut counters = attribute.value.chunks_exact(8).map(|bytes| {
            let bytes = bytes.first_chunk().expect("chunks of exactly 8");
            u64::from_ne_bytes(*bytes)
        });
        let mut next = || {
            counters.next().ok_or(DecodeError::AttributeValue {
                kind: attribute.kind,
                length: attribute.value.len(),
                expected: "set of link counters",
            })
        };
        Ok(Self {
            received_packets: next()?,
            sent_packets: next()?,
            received_bytes: next()?,
            sent_bytes: next()?,
            receive_errors: next()?,
            send_errors: next()?,
            receive_dropped: next()?,
            send_dropped: next()?,
        })
    }
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Whether it is meant to carry traffic.
    pub state: LinkState,
    /// Whether it can: of a veth pair, whether both ends are up.
    pub carrier: LinkState,
    /// Whether it is the namespace's own loopback.
    pub loopback: bool,
    /// The largest packet that it takes, in bytes.
    pub mtu_bytes: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// What makes it, "veth" say; nothing for hardware and loopback.
    pub kind: Option<String>,
    /// The link it is tied to: of a veth pair the other end, by its number in `peer_namespace`.
    pub peer: Option<LinkIndex>,
    /// The namespace of the peer, by the id that this namespace knows it by; the same namespace if there is none.
    pub peer_namespace: Option<i32>,
    /// The bridge or bond that it is a port of.
    pub master: Option<LinkIndex>,
    /// The group it is in; 0 unless somebody put it into another.
    pub group: u32,
    /// How many queues it was made with for what it sends; 0 if the kernel does not say.
    pub sending_queues: u32,
    /// How many for what it receives; 0 if the kernel does not say.
    pub receiving_queues: u32,
    /// What it has carried.
    pub statistics: LinkStatistics,
}

impl Link {
    /// Reads an `RTM_NEWLINK` message's body; `None` if it describes something else than a link (a bridge port's own
    /// settings, say).
    ///
    /// # Errors
    /// [`DecodeError`] if it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (fixed, attributes) = split_body::<LINK_BYTES>("link", body)?;
        let [family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = fixed;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let Some(index) = LinkIndex::new(u32::from_ne_bytes([i0, i1, i2, i3])) else { return Ok(None) };
        if family != 0 {
            return Ok(None);
        }
        let state = |flag| if flags & flag != 0 { LinkState::Up } else { LinkState::Down };
        let mut link = Self {
            index,
            name: String::new(),
            state: state(IFF_UP),
            carrier: state(IFF_LOWER_UP),
            loopback: flags & IFF_LOOPBACK != 0,
            mtu_bytes: 0,
            mac: None,
            kind: None,
            peer: None,
            peer_namespace: None,
            master: None,
            group: 0,
            sending_queues: 0,
            receiving_queues: 0,
            statistics: LinkStatistics::default(),
        };
        link.fill(attributes)?;
        Ok(Some(link))
    }

    fn fill(&mut self, attributes: Attributes<'_>) -> Result<(), DecodeError> {
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFLA_IFNAME => self.name = attribute.text(),
                IFLA_MTU => self.mtu_bytes = attribute.u32()?,
                IFLA_GROUP => self.group = attribute.u32()?,
                IFLA_NUM_TX_QUEUES => self.sending_queues = attribute.u32()?,
                IFLA_NUM_RX_QUEUES => self.receiving_queues = attribute.u32()?,
                // Other kinds of links have addresses of other sizes.
                IFLA_ADDRESS => self.mac = attribute.mac().ok(),
                IFLA_LINK => self.peer = LinkIndex::new(attribute.u32()?),
                IFLA_LINK_NETNSID => self.peer_namespace = Some(attribute.i32()?),
                IFLA_MASTER => self.master = LinkIndex::new(attribute.u32()?),
                IFLA_STATS64 => self.statistics = LinkStatistics::decode(&attribute)?,
                IFLA_LINKINFO => {
                    for inner in attribute.attributes() {
                        let inner = inner?;
                        if inner.kind == IFLA_INFO_KIND {
                            self.kind = Some(inner.text());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn decode_message(message: &Message<'_>) -> Result<Option<Link>, DecodeError> {
    if message.header.kind == RTM_NEWLINK { Link::decode(message.body) } else { Ok(None) }
}

impl Connection {
    /// All links of the namespace.
    ///
    /// # Errors
    /// As [`Connection::dump`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut writer = Writer::new();
        write_header(None, 0, 0, &mut writer);
        let request = Request::new(Protocol::Route, RTM_GETLINK, 0, "list links", writer);
        self.dump(&request, decode_message)
    }

    /// One link with its counters; `None` if there is none.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub fn link(&mut self, link: impl Into<LinkId>) -> Result<Option<Link>, NetlinkError> {
        let request = Request::new(Protocol::Route, RTM_GETLINK, 0, "look at a link", selector(&link.into()));
        let mut found = None;
        let result = self.get(&request, |message| {
            found = decode_message(message)?;
            Ok(())
        });
        match result {
            Ok(()) => Ok(found),
            Err(error) if error.kernel_errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number of a link, by an ioctl that takes no lock (`SIOCGIFINDEX`, netdevice(7)), unlike [`Connection::link`]. It
    /// is meant for links that are there: for others the kernel first looks for a module of that name.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`]; `ENODEV` if there is none.
    pub fn link_index(&self, name: &LinkName) -> Result<LinkIndex, NetlinkError> {
        let found = name_to_index(self, name.as_str());
        found.and_then(|index| LinkIndex::new(index).ok_or(Errno::NODEV)).map_err(|errno| {
            let what = "find a link's number";
            KernelError { what, errno, text: None, offset_bytes: None, attribute: None, missing: None }.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "eth0", "fifteen-letters", "a.b", "_@!"] {
            assert_eq!(LinkName::new(name).as_ref().map(LinkName::as_str), Ok(name));
        }
        for name in ["", ".", "..", "a b", "a/b", "a:b", "eth%d", "sixteen-letters!", "a\0", "a\n", "\u{e4}"]
        {
            let error = LinkName::new(name).expect_err(name);
            assert!(error.to_string().ends_with("and not . or .."), "{error}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(LinkIndex::new(0), None);
        assert_eq!(LinkIndex::new(1 << 31), None);
        assert_eq!(LinkIndex::new((1 << 31) - 1).map(LinkIndex::get), Some((1 << 31) - 1));
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_read_back(name in "[a-z0-9]{1,15}", index in 1_u32..1 << 31, mtu_bytes: u32, queues in 1_u32.., mac: Mac) {
            let (name, index) = (LinkName::new(&name).expect("letters"), LinkIndex::new(index).expect("in range"));
            let end = VethEnd::new(name.clone()).index(index).mtu_bytes(mtu_bytes).mac(mac).state(LinkState::Up);
            let end = end.queues(NonZeroU32::new(queues).expect("one at least"));
            let link = Link::decode(&create_veth(&end, &end).body).expect("readable").expect("a link");
            prop_assert_eq!((link.name.as_str(), link.index, link.mtu_bytes), (name.as_str(), index, mtu_bytes));
            prop_assert_eq!((link.mac, link.state, link.kind.as_deref()), (Some(mac), LinkState::Up, Some("veth")));
            prop_assert_eq!((link.sending_queues, link.receiving_queues), (queues, queues));
        }
    }
}
