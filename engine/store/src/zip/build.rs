//! Zips for tests, also such as no tool would make.

use std::io::Write as _;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// An entry with every field that a test may want to bend.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) host: u8,
    pub(crate) flags: u16,
    /// Written as the method; content is deflated when it is 8.
    pub(crate) method: u16,
    /// Added to the stated size.
    pub(crate) size_lie: i64,
    pub(crate) crc_lie: u32,
    pub(crate) offset_lie: u32,
}

pub(crate) fn file(name: &str, content: &[u8]) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        content: content.to_vec(),
        mode: 0o100_644,
        host: 3,
        flags: 0,
        method: 8,
        size_lie: 0,
        crc_lie: 0,
        offset_lie: 0,
    }
}

pub(crate) fn link(name: &str, target: &str) -> Entry {
    Entry { mode: 0o120_777, method: 0, ..file(name, target.as_bytes()) }
}

pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let data = if entry.method == 8 {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&entry.content).unwrap();
            encoder.finish().unwrap()
        } else {
            entry.content.clone()
        };
        let mut crc = Crc::new();
        crc.update(&entry.content);
        let size = u32::try_from(i64::try_from(entry.content.len()).unwrap() + entry.size_lie).unwrap();
        let offset = u32::try_from(out.len()).unwrap() + entry.offset_lie;
        let mut common = Vec::new();
        for field in [20, entry.flags, entry.method, 0, 33] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        for field in [crc.sum() ^ entry.crc_lie, u32::try_from(data.len()).unwrap(), size] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        common.extend_from_slice(&u16::try_from(entry.name.len()).unwrap().to_le_bytes());
        common.extend_from_slice(&[0; 2]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(&entry.name);
        out.extend_from_slice(&data);
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&[20, entry.host]);
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(entry.mode << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(&entry.name);
    }
    let start = u32::try_from(out.len()).unwrap();
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(entries.len()).unwrap();
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}
