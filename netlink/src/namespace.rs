//! Network namespaces by descriptor: the ids that one namespace knows others by.
//!
//! Owns: the encoding of namespace id requests and answers. Must not know: how namespaces are made or entered.
//! Layout: include/uapi/linux/net_namespace.h. [`Link::peer_namespace`](crate::Link::peer_namespace) is such an id.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::attribute::{Writer, split_body};
use crate::connection::Connection;
use crate::error::NetlinkError;
use crate::request::{Protocol, Request};

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Of an answer: none was given yet. Of a request: any that is free.
const NSID_NONE: i32 = -1;

fn writer(namespace: BorrowedFd<'_>) -> Writer {
    let mut writer = Writer::new();
    // `struct rtgenmsg`: the family, which has no meaning here.
    writer.fixed(&[0]).i32(NETNSA_FD, namespace.as_raw_fd());
    writer
}

/// A request to give the namespace an id by which the connection's namespace knows it, any that is free; refused
/// (`EEXIST`) if it has one. The kernel gives ids by itself too, when a link leads to another namespace.
///
/// ```no_run
/// use std::os::fd::AsFd;
/// use faaster_netlink::{Connection, Protocol, assign_namespace_id};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let container = std::fs::File::open("/proc/4711/ns/net")?;
/// let mut connection = Connection::open(Protocol::Route)?;
/// if connection.namespace_id(container.as_fd())?.is_none() {
///     connection.run(&assign_namespace_id(container.as_fd()))?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn assign_namespace_id(namespace: BorrowedFd<'_>) -> Request<'_> {
    let mut writer = writer(namespace);
    writer.i32(NETNSA_NSID, NSID_NONE);
    Request::new(Protocol::Route, RTM_NEWNSID, 0, "give a namespace an id", writer)
}

impl Connection {
    /// The id by which the connection's namespace knows another; `None` if it has none yet.
    ///
    /// # Errors
    /// As [`Connection::get`].
    pub fn namespace_id(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>, NetlinkError> {
        let request =
            Request::new(Protocol::Route, RTM_GETNSID, 0, "look up a namespace's id", writer(namespace));
        let mut id = None;
        self.get(&request, |message| {
            let (_, attributes) = split_body::<1>("namespace id", message.body)?;
            for attribute in attributes {
                let attribute = attribute?;
                if attribute.kind == NETNSA_NSID {
                    id = Some(attribute.i32()?).filter(|id| *id != NSID_NONE);
                }
            }
            Ok(())
        })?;
        Ok(id)
    }
}
