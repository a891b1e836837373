//! What all of netfilter's messages share: their fixed part and how their kinds are numbered.
//!
//! Owns: that encoding. Must not know: nftables, connection tracking.
//! Layout: include/uapi/linux/netfilter/nfnetlink.h; unlike elsewhere, numbers are in network byte order.

use crate::attribute::{Attributes, Writer, split_body};
use crate::wire::DecodeError;

/// Bytes of `struct nfgenmsg`.
const GENERIC_BYTES: usize = 4;

/// A part of netfilter (`NFNL_SUBSYS_*`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subsystem {
    Conntrack = 1,
    Nftables = 10,
}

/// The number of a message's kind.
pub(crate) fn kind(subsystem: Subsystem, message: u8) -> u16 {
    u16::from_be_bytes([subsystem as u8, message])
}

/// A body that begins with the family; `resource` has a meaning only around transactions.
pub(crate) fn body(family: u8, resource: u8) -> Writer {
    let mut writer = Writer::new();
    writer.fixed(&[family, 0, 0, resource]);
    writer
}

/// The family that a body is about, and its attributes.
pub(crate) fn split<'a>(what: &'static str, body: &'a [u8]) -> Result<(u8, Attributes<'a>), DecodeError> {
    let ([family, ..], attributes) = split_body::<GENERIC_BYTES>(what, body)?;
    Ok((family, attributes))
}
