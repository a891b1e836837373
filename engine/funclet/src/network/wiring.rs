//! One container's link: made, put into another group, taken back.
//!
//! Owns: the order of the messages. Must not know: threads, when links are made.
//! Costs: docs/decisions.md. Every message waits for the kernel's one lock of network configuration.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use faaster_limits::{FLOW_LISTINGS_MAX, FLOWS_FORGOTTEN_AT_ONCE_MAX};
use faaster_netlink::{
    BatchError, Connection, Forwarding, Gateway, KernelError, LinkAddress, LinkChange, LinkIndex, LinkLocal,
    LinkName, LinkState, Neighbour, NetlinkError, Protocol, Request, Route, Subnet, VethEnd, create_veth,
    delete_link,
};
use faaster_protocol::funclet::NetworkMode;
use faaster_sys::clone3::unshare_network;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::flows::{Flows, Traces};
use super::plan::{GATEWAY_V4, GATEWAY_V6, INNER_NAME, OUTER_MAC, Place, Plan};
use super::rules::group_of;
use super::touched::{self, Touched};
use super::{NetworkConfig, NetworkError, host};

/// The first link of every namespace (LOOPBACK_IFINDEX of include/net/flow.h).
const LOOPBACK_INDEX: u32 = 1;

/// Where the kernel shows the links of a network namespace that are no hardware.
const LINKS_FOLDER: &str = "/sys/devices/virtual/net";

/// The step of a container's network that failed.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error("cannot enter a container's network namespace")]
    Enter(#[source] Errno),
    #[error("cannot come back from a container's network namespace")]
    Lost(#[source] Errno),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Refused(#[from] KernelError),
    #[error(transparent)]
    Batch(#[from] Box<BatchError>),
    #[error("cannot bring up the loopback of a namespace that was just made")]
    Loopback(#[source] NetlinkError),
    #[error("cannot look into a container's network namespace")]
    Look(#[source] std::io::Error),
    #[error("the kernel tracks too many flows of containers that are gone")]
    Flows,
}

impl WiringError {
    /// The kernel's reason.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Enter(errno) | Self::Lost(errno) => *errno,
            Self::Netlink(error) | Self::Loopback(error) => error.kernel_errno().unwrap_or(Errno::IO),
            Self::Refused(error) => error.errno,
            Self::Batch(_) | Self::Look(_) | Self::Flows => Errno::IO,
        }
    }
}

/// The container's end, by which its addresses can be taken away.
#[derive(Debug)]
pub(crate) struct Inside {
    connection: Connection,
    index: LinkIndex,
}

/// Whether a namespace is still wanted by whom it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Taken,
    GivenUp,
}

/// A network namespace just made, with its loopback up.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub namespace: OwnedFd,
    inside: Connection,
}

/// A link that is there.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The host's end.
    pub link: LinkIndex,
    pub inside: Inside,
    pub mode: NetworkMode,
}

/// Makes links. Belongs to one thread, which it moves between namespaces for a moment.
#[derive(Debug)]
pub(crate) struct Wiring {
    route: Connection,
    /// Opened when it is first needed.
    netfilter: Option<Connection>,
    own_namespace: OwnedFd,
    /// [`LINKS_FOLDER`]. It may show another namespace's, or be read-only.
    links: Option<OwnedFd>,
    mtu_bytes: u32,
    link_local: LinkLocalKind,
    flows: Flows,
}

/// Whether links would give themselves IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkLocalKind {
    /// They must be told not to.
    Quiet,
    /// They have no IPv6, and the kernel no word for it.
    Unknown,
}

impl Wiring {
    /// For the namespace that the calling thread is in. All links that are made by a plan must be made by one.
    ///
    /// # Errors
    /// There is no netlink.
    pub(crate) fn open(settings: &NetworkConfig, plan: Plan) -> Result<Self, NetworkError> {
        let path = "/proc/thread-self/ns/net";
        let own_namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(NetworkError::Namespace)?;
        let has_v6 = host::has_v6() && settings.mtu_bytes >= host::MTU_V6_MIN;
        let link_local = if has_v6 { LinkLocalKind::Quiet } else { LinkLocalKind::Unknown };
        let links =
            rustix::fs::open(LINKS_FOLDER, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            route: Connection::open(Protocol::Route)?,
            netfilter: None,
            own_namespace,
            links: links.ok(),
            mtu_bytes: settings.mtu_bytes,
            link_local,
            flows: Flows::new(plan),
        })
    }

    pub(crate) fn route(&mut self) -> &mut Connection {
        &mut self.route
    }

    pub(crate) fn netfilter(&mut self) -> Result<&mut Connection, NetlinkError> {
        let connection = match self.netfilter.take() {
            Some(connection) => connection,
            None => Connection::open(Protocol::Netfilter)?,
        };
        Ok(self.netfilter.insert(connection))
    }

    /// Makes a network namespace, which belongs to the host's user namespace: root in a container has no say in it. Its
    /// loopback comes up after `hand_over` has had it, which says whether somebody wants it.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn make_namespace(
        &self,
        hand_over: impl FnOnce(BorrowedFd<'_>) -> Wish,
    ) -> Result<Option<Fresh>, WiringError> {
        unshare_network().map_err(WiringError::Enter)?;
        let fresh = make_here(hand_over);
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.own_namespace.as_fd(), kind).map_err(WiringError::Lost)?;
        fresh
    }

    /// As [`Self::wire`], for a namespace just made, which it gives back.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn wire_fresh(
        &mut self,
        place: &Place,
        fresh: Fresh,
        mode: NetworkMode,
    ) -> (Result<Attached, WiringError>, OwnedFd) {
        let Fresh { namespace, inside } = fresh;
        (self.wire_with(place, inside, namespace.as_fd(), mode), namespace)
    }

    /// Whether anything in a container's namespace, or of it in the world, could tell that it has been used; if not, with
    /// the container's end of its link.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn look_inside(
        &self,
        namespace: BorrowedFd<'_>,
    ) -> Result<(Touched, Option<Inside>), WiringError> {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, kind).map_err(WiringError::Enter)?;
        let touched = touched::look(INNER_NAME);
        let connection = match touched {
            Ok(Touched::No) => Connection::open(Protocol::Route).map(Some),
            _ => Ok(None),
        };
        move_into_link_name_space(self.own_namespace.as_fd(), kind).map_err(WiringError::Lost)?;
        let touched = touched.map_err(WiringError::Look)?;
        let Some(connection) = connection? else { return Ok((touched, None)) };
        let index = connection.link_index(&LinkName::new(INNER_NAME).expect("a name"))?;
        Ok((touched, Some(Inside { connection, index })))
    }

    /// Makes the pair, and all that belongs to it at both ends.
    ///
    /// # Errors
    /// The step that failed; the link is gone then.
    pub(crate) fn wire(
        &mut self,
        place: &Place,
        namespace: BorrowedFd<'_>,
        mode: NetworkMode,
    ) -> Result<Attached, WiringError> {
        let inside = self.connect_inside(namespace)?;
        self.wire_with(place, inside, namespace, mode)
    }

    fn wire_with(
        &mut self,
        place: &Place,
        mut inside: Connection,
        namespace: BorrowedFd<'_>,
        mode: NetworkMode,
    ) -> Result<Attached, WiringError> {
        if self.flows.traces_at(place) == Traces::Possible {
            // Or answers to the one that had the addresses before would come to this one.
            self.flows.vacate(place);
            self.forget_flows()?;
        }
        self.flows.occupy(place);
        self.create(place, namespace, mode)?;
        let made = self.set_up_outside(place).and_then(|link| {
            let index = self.set_up_inside(place, &mut inside)?;
            Ok(Attached { link, inside: Inside { connection: inside, index }, mode })
        });
        if made.is_err() {
            // What is half made is of no use; without it the container has its loopback.
            self.route.run(&delete_link(&place.name)).ok();
        }
        made
    }

    /// A connection whose socket belongs to the container's namespace for ever.
    fn connect_inside(&self, namespace: BorrowedFd<'_>) -> Result<Connection, WiringError> {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, kind).map_err(WiringError::Enter)?;
        let connection = Connection::open(Protocol::Route);
        move_into_link_name_space(self.own_namespace.as_fd(), kind).map_err(WiringError::Lost)?;
        Ok(connection?)
    }

    fn create(
        &mut self,
        place: &Place,
        namespace: BorrowedFd<'_>,
        mode: NetworkMode,
    ) -> Result<(), WiringError> {
        let outer = VethEnd::new(place.name.clone())
            .mac(OUTER_MAC)
            .mtu_bytes(self.mtu_bytes)
            .queues(NonZeroU32::MIN)
            .group(group_of(mode));
        let inner = VethEnd::new(LinkName::new(INNER_NAME).expect("a name"))
            .mac(place.mac)
            .mtu_bytes(self.mtu_bytes)
            .queues(NonZeroU32::MIN)
            .namespace(namespace);
        let request = create_veth(&outer, &inner);
        match self.route.run(&request) {
            Err(NetlinkError::Kernel(error)) if error.errno == Errno::EXIST => {
                // The last one of this name, whose namespace the kernel has not come round to yet.
                self.route.run(&delete_link(&place.name))?;
                self.route.run(&request)?;
            }
            result => result?,
        }
        Ok(())
    }

    /// No address of its own by which something would listen there: [`LinkLocal::None`] before it is up.
    fn quieten<'fd>(&self, change: LinkChange<'fd>) -> LinkChange<'fd> {
        match self.link_local {
            LinkLocalKind::Quiet => change.link_local(LinkLocal::None),
            LinkLocalKind::Unknown => change,
        }
    }

    fn set_up_outside(&mut self, place: &Place) -> Result<LinkIndex, WiringError> {
        let link = self.route.link_index(&place.name)?;
        let change = self.quieten(LinkChange::new(link).forwarding_v4(Forwarding::On));
        let mut requests = vec![change.request(), LinkChange::new(link).state(LinkState::Up).request()];
        for address in place.addresses() {
            requests.push(Neighbour::permanent(link, address, place.mac).set());
            // The last container of these addresses may have left its route behind for a moment.
            requests.push(Route::device(Subnet::host(address), link).replace());
        }
        all(&mut self.route, &requests)?;
        Ok(link)
    }

    fn set_up_inside(&mut self, place: &Place, inside: &mut Connection) -> Result<LinkIndex, WiringError> {
        let name = LinkName::new(INNER_NAME).expect("a name");
        let index = inside.link_index(&name)?;
        let mut requests = Vec::new();
        if self.link_local == LinkLocalKind::Quiet {
            requests.push(self.quieten(LinkChange::new(index)).request());
        }
        requests.push(LinkChange::new(index).state(LinkState::Up).request());
        for address in place.addresses() {
            let gateway = if address.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 };
            requests.push(LinkAddress::host(index, address).add());
            requests.push(Neighbour::permanent(index, gateway, OUTER_MAC).set());
            requests.push(Route::default_via(Gateway::OnLink(gateway), index).add());
        }
        all(inside, &requests)?;
        Ok(index)
    }

    /// Puts a link into the group of another mode.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn regroup(
        &mut self,
        name: &LinkName,
        link: LinkIndex,
        mode: NetworkMode,
    ) -> Result<(), WiringError> {
        if self.write_group(name, mode).is_ok() {
            return Ok(());
        }
        Ok(self.route.run(&LinkChange::new(link).group(group_of(mode)).request())?)
    }

    /// By sysfs the kernel changes the number alone. After a message it also looks through all routes of IPv6, for a change
    /// of the link's state: 0.4 ms with 1,000 links.
    fn write_group(&self, name: &LinkName, mode: NetworkMode) -> Result<(), Errno> {
        let links = self.links.as_ref().ok_or(Errno::NOENT)?;
        let path = format!("{}/netdev_group", name.as_str());
        let file = rustix::fs::openat(links, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, group_of(mode).to_string().as_bytes()).map(drop)
    }

    /// Forgets what the kernel tracks of addresses that are ours to give and that nobody has; an earlier run's too.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn forget_flows(&mut self) -> Result<(), WiringError> {
        self.netfilter()?;
        let netfilter = self.netfilter.as_mut().expect("just opened");
        let flows = &self.flows;
        for _ in 0..FLOW_LISTINGS_MAX {
            // Also counts what a listing has had that the kernel broke off.
            let mut found = 0;
            let vacant = netfilter.flows_where(|flow| {
                let ours = flows.is_vacant(flow.original.source) || flows.is_vacant(flow.reply.source);
                found += usize::from(ours);
                ours && found <= FLOWS_FORGOTTEN_AT_ONCE_MAX
            })?;
            let requests: Vec<Request<'_>> = vacant.iter().map(faaster_netlink::Flow::delete).collect();
            for outcome in netfilter.run_all(&requests)? {
                match outcome {
                    Err(error) if error.errno != Errno::NOENT => return Err(error.into()),
                    _ => {}
                }
            }
            if found == vacant.len() {
                self.flows.forgotten();
                return Ok(());
            }
        }
        Err(WiringError::Flows)
    }
}

impl Inside {
    /// One that leads nowhere.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let index = LinkIndex::new(LOOPBACK_INDEX).expect("not 0");
        Self { connection: Connection::open(Protocol::Route).expect("netlink is there"), index }
    }

    /// Leaves the container with its loopback addresses: what it sends then is refused at once, by its own kernel side.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(crate) fn remove_addresses(&mut self, place: &Place) -> Result<(), WiringError> {
        let mut requests = Vec::new();
        for address in place.addresses() {
            // With the last address of IPv4 go its routes; those of IPv6 stay.
            if address.is_ipv6() {
                requests.push(Route::default_via(Gateway::OnLink(GATEWAY_V6), self.index).delete());
            }
            requests.push(LinkAddress::host(self.index, address).delete());
        }
        all(&mut self.connection, &requests)
    }
}

/// In the namespace that the calling thread has just made.
fn make_here(hand_over: impl FnOnce(BorrowedFd<'_>) -> Wish) -> Result<Option<Fresh>, WiringError> {
    let path = "/proc/thread-self/ns/net";
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(WiringError::Enter)?;
    if hand_over(namespace.as_fd()) == Wish::GivenUp {
        return Ok(None);
    }
    let loopback = LinkIndex::new(LOOPBACK_INDEX).expect("not 0");
    let up = LinkChange::new(loopback).state(LinkState::Up).request();
    let inside = Connection::open(Protocol::Route)
        .and_then(|mut inside| inside.run(&up).map(|()| inside))
        .map_err(WiringError::Loopback)?;
    Ok(Some(Fresh { namespace, inside }))
}

fn all(connection: &mut Connection, requests: &[Request<'_>]) -> Result<(), WiringError> {
    for outcome in connection.run_all(requests)? {
        outcome?;
    }
    Ok(())
}
