//! Attributes: the length, kind and value triples that make up a message's body, read and written.
//!
//! Owns: their encoding, nesting and alignment. Must not know: what an attribute of a kind means.
//! Layout: `struct nlattr` of include/uapi/linux/netlink.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{DecodeError, aligned, array};

/// Bytes in front of an attribute's value.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Bytes of the largest value an attribute can hold: its length field has 16 bits.
pub const VALUE_BYTES_MAX: usize = u16::MAX as usize - ATTRIBUTE_HEADER_BYTES;

/// `NLA_F_NESTED`: the value is itself made of attributes.
const NESTED: u16 = 0x8000;
/// What is left of a kind without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND_MASK: u16 = 0x3fff;

/// One attribute as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without flags.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn wrong(&self, expected: &'static str) -> DecodeError {
        DecodeError::AttributeValue { kind: self.kind, length: self.value.len(), expected }
    }

    fn number<const N: usize>(&self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        if self.value.len() == N { array(self.value) } else { None }.ok_or_else(|| self.wrong(expected))
    }

    /// The value as one byte.
    ///
    /// # Errors
    /// This and its siblings: [`DecodeError::AttributeValue`] if the value has another size.
    pub fn u8(&self) -> Result<u8, DecodeError> {
        self.number::<1>("8-bit number").map(|[byte]| byte)
    }

    /// The value as a number in the machine's byte order.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn u16(&self) -> Result<u16, DecodeError> {
        self.number("16-bit number").map(u16::from_ne_bytes)
    }

    /// The value as a number in the machine's byte order.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn u32(&self) -> Result<u32, DecodeError> {
        self.number("32-bit number").map(u32::from_ne_bytes)
    }

    /// The value as a signed number in the machine's byte order.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn i32(&self) -> Result<i32, DecodeError> {
        self.number("32-bit number").map(i32::from_ne_bytes)
    }

    /// The value as a number in network byte order, as netfilter writes them.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn be16(&self) -> Result<u16, DecodeError> {
        self.number("16-bit number").map(u16::from_be_bytes)
    }

    /// The value as a number in network byte order, as netfilter writes them.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn be32(&self) -> Result<u32, DecodeError> {
        self.number("32-bit number").map(u32::from_be_bytes)
    }

    /// The value as text, up to the NUL byte that the kernel ends it with. Bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// The value as an IP address; its size tells the family.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn ip(&self) -> Result<IpAddr, DecodeError> {
        match self.value.len() {
            4 => self.number("IP address").map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
            16 => self.number("IP address").map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into()),
            _ => Err(self.wrong("IP address")),
        }
    }

    /// The value as an Ethernet address.
    ///
    /// # Errors
    /// See [`Attribute::u8`].
    pub fn mac(&self) -> Result<[u8; 6], DecodeError> {
        self.number("Ethernet address")
    }

    /// The attributes that the value is made of.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// The attributes that lie one behind the other. Ends after the first error; fewer bytes at the end than an
/// attribute's header has are passed over, as the kernel's own reader does (`nla_ok`).
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes of a body behind its fixed part, or of a nested attribute's value.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1] = array(self.rest)?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & KIND_MASK;
        let left = self.rest.len();
        if length < ATTRIBUTE_HEADER_BYTES || length > left {
            self.rest = &[];
            return Some(Err(DecodeError::AttributeLength { kind, length, left }));
        }
        let value = &self.rest[ATTRIBUTE_HEADER_BYTES..length];
        self.rest = &self.rest[aligned(length).min(left)..];
        Some(Ok(Attribute { kind, value }))
    }
}

/// Splits a body into its fixed part of `N` bytes and the attributes behind it.
///
/// # Errors
/// [`DecodeError::BodyCut`] if the fixed part is not whole.
pub fn split_body<'a, const N: usize>(
    what: &'static str,
    body: &'a [u8],
) -> Result<([u8; N], Attributes<'a>), DecodeError> {
    let fixed = array(body).ok_or(DecodeError::BodyCut { what, length: body.len(), expected: N })?;
    Ok((fixed, Attributes::new(&body[aligned(N).min(body.len())..])))
}

/// Writes a message's body: a fixed part first, then attributes.
///
/// ```
/// use faaster_netlink::{Attributes, Writer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = Writer::new();
/// writer.u32(1, 1500).nested(2, |inner| {
///     inner.text(3, "eth0").ip(4, "192.0.2.1".parse().expect("an address"));
/// });
/// let bytes = writer.into_bytes();
/// let mut attributes = Attributes::new(&bytes);
/// let mtu = attributes.next().ok_or("two were written")??;
/// assert_eq!((mtu.kind, mtu.u32()?), (1, 1500));
/// let nested = attributes.next().ok_or("two were written")??;
/// let inner = nested.attributes().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!((inner[0].text(), inner[1].ip()?), ("eth0".to_owned(), "192.0.2.1".parse()?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A body with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` as they are, and what aligns the next.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.align();
        self
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// If the value is larger than [`VALUE_BYTES_MAX`]: what can be large is cut by its caller.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        assert!(value.len() <= VALUE_BYTES_MAX, "an attribute's value has at most {VALUE_BYTES_MAX} bytes");
        self.header(ATTRIBUTE_HEADER_BYTES + value.len(), kind);
        self.bytes.extend_from_slice(value);
        self.align();
        self
    }

    /// Adds an attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// Adds a number in the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a signed number in the machine's byte order.
    pub fn i32(&mut self, kind: u16, value: i32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a number in network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds text and the NUL byte that ends it.
    ///
    /// # Panics
    /// See [`Writer::attribute`].
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an IP address.
    pub fn ip(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Adds an attribute that is made of those that `fill` writes.
    ///
    /// # Panics
    /// See [`Writer::attribute`].
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.header(ATTRIBUTE_HEADER_BYTES, kind | NESTED);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start);
        let length = length.expect("what is nested is cut by its caller to fit into 16 bits of length");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn header(&mut self, length: usize, kind: u16) {
        let length = u16::try_from(length).expect("checked against VALUE_BYTES_MAX");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
    }

    fn align(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nests_and_aligns() {
        let mut writer = Writer::new();
        writer.nested(18, |info| {
            info.text(1, "veth").u8(2, 9);
        });
        writer.u32(4, 1500);
        let bytes = writer.into_bytes();
        let all: Vec<_> = Attributes::new(&bytes).map(|found| found.expect("valid")).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[1].kind, all[1].u32()), (18, 4, Ok(1500)));
        let inner: Vec<_> = all[0].attributes().map(|found| found.expect("valid")).collect();
        assert_eq!((inner[0].text().as_str(), inner[1].u8()), ("veth", Ok(9)));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn refuses_values_of_another_size() {
        let odd = Attribute { kind: 4, value: &[1, 2, 3] };
        let error = DecodeError::AttributeValue { kind: 4, length: 3, expected: "32-bit number" };
        assert_eq!(odd.u32(), Err(error));
        assert!(odd.ip().is_err() && odd.mac().is_err() && odd.u8().is_err() && odd.be16().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(written in proptest::collection::vec((0..=KIND_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut writer = Writer::new();
            for (kind, value) in &written {
                writer.attribute(*kind, value);
            }
            let bytes = writer.into_bytes();
            let read: Vec<_> = Attributes::new(&bytes)
                .map(|found| found.map(|found| (found.kind, found.value.to_vec())))
                .collect::<Result<_, _>>()
                .expect("what was written is valid");
            prop_assert_eq!(read, written);
        }

        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for found in Attributes::new(&bytes).flatten() {
                prop_assert!(found.value.len() <= bytes.len());
                prop_assert_eq!(found.text().contains('\0'), false);
                for inner in found.attributes().flatten() {
                    prop_assert!(inner.value.len() < found.value.len());
                }
            }
        }
    }
}
