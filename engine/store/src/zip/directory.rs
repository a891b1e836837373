//! The central directory of a zip (PKWARE APPNOTE 6.3, sections 4.3 and 4.5).
//!
//! Owns: finding and reading it, and where each entry's data lies. Must not know: which names or kinds are good.
//! Every offset and length is the uploader's word: nothing is indexed without a check.

use faaster_limits::ZIP_ENTRIES_MAX;

use super::ZipError;

/// One entry, as the central directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry<'z> {
    pub name: &'z [u8],
    /// Upper byte of "version made by": 0 MS-DOS, 3 Unix, 10 NTFS, 19 macOS.
    pub host: u8,
    pub flags: u16,
    pub method: u16,
    pub crc32: u32,
    pub compressed_bytes: u64,
    pub bytes: u64,
    /// Upper half: Unix mode, if the maker gave one. Lower half: MS-DOS attributes.
    pub external_attributes: u32,
    local_offset: u64,
}

const END: &[u8; 4] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const END64_LOCATOR: &[u8; 4] = b"PK\x06\x07";
const END64_LOCATOR_BYTES: usize = 20;
const END64: &[u8; 4] = b"PK\x06\x06";
const END64_BYTES: usize = 56;
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const CENTRAL_BYTES: usize = 46;
const LOCAL: &[u8; 4] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// Header id of the zip64 extra field.
const ZIP64_EXTRA: u16 = 1;

struct End {
    entries: u64,
    directory_bytes: u64,
    directory_offset: u64,
    /// Where the end records begin: the directory lies right before it.
    at: usize,
}

/// Reads the central directory.
///
/// # Errors
/// The bytes are no zip, are cut off, or hold more entries than the bound.
pub fn entries(zip: &[u8]) -> Result<Vec<RawEntry<'_>>, ZipError> {
    let end = find_end(zip)?;
    if end.entries > ZIP_ENTRIES_MAX as u64 {
        return Err(ZipError::TooManyEntries);
    }
    let size = usize::try_from(end.directory_bytes).ok().filter(|size| *size <= end.at);
    let start = end.at - size.ok_or(ZipError::NotZip("its central directory is cut off"))?;
    // Bytes before the archive (a self-extractor) move every offset by as much.
    let shift = (start as u64)
        .checked_sub(end.directory_offset)
        .ok_or(ZipError::NotZip("its central directory is not where it says"))?;
    let mut rest = &zip[start..end.at];
    let count = usize::try_from(end.entries).map_err(|_| ZipError::TooManyEntries)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (mut entry, used) = central_entry(rest)?;
        entry.local_offset = entry
            .local_offset
            .checked_add(shift)
            .ok_or(ZipError::NotZip("an entry lies outside of the file"))?;
        entries.push(entry);
        rest = &rest[used..];
    }
    Ok(entries)
}

/// The entry's bytes as they lie in the zip, still compressed.
///
/// # Errors
/// They are not where the directory says.
pub fn data<'z>(zip: &'z [u8], entry: &RawEntry<'_>) -> Result<&'z [u8], ZipError> {
    let damaged = || ZipError::Damaged(display(entry.name), "its data is not where the directory says");
    let at = usize::try_from(entry.local_offset).map_err(|_| damaged())?;
    let header = zip.get(at..).and_then(|rest| rest.get(..LOCAL_BYTES)).ok_or_else(damaged)?;
    if !header.starts_with(LOCAL) {
        return Err(damaged());
    }
    let names = usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
    let length = usize::try_from(entry.compressed_bytes).map_err(|_| damaged())?;
    let start = at + LOCAL_BYTES + names;
    let stop = start.checked_add(length).ok_or_else(damaged)?;
    zip.get(start..stop).ok_or_else(damaged)
}

/// A name for an error message.
pub fn display(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    if let Some((cut, _)) = text.char_indices().nth(80) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn find_end(zip: &[u8]) -> Result<End, ZipError> {
    if zip.len() < END_BYTES {
        return Err(ZipError::NotZip("it is too short"));
    }
    // The comment after the record has at most 65,535 bytes.
    let last = zip.len() - END_BYTES;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let at = (first..=last)
        .rev()
        .find(|at| {
            zip[*at..].starts_with(END) && at + END_BYTES + usize::from(u16_at(zip, at + 20)) <= zip.len()
        })
        .ok_or(ZipError::NotZip("it has no end record"))?;
    let record = &zip[at..at + END_BYTES];
    // Number of this volume and of the directory's; 0xFFFF where the zip64 record has them.
    if [4, 6].into_iter().any(|field| !matches!(u16_at(record, field), 0 | u16::MAX)) {
        return Err(ZipError::Spanned);
    }
    let plain = End {
        entries: u16_at(record, 10).into(),
        directory_bytes: u32_at(record, 12).into(),
        directory_offset: u32_at(record, 16).into(),
        at,
    };
    let is_64 =
        u16_at(record, 10) == u16::MAX || u32_at(record, 12) == u32::MAX || u32_at(record, 16) == u32::MAX;
    if is_64 { find_end64(zip, at).map(|end| end.unwrap_or(plain)) } else { Ok(plain) }
}

/// `None`: there is no zip64 record, so the numbers of the short one stand.
fn find_end64(zip: &[u8], end_at: usize) -> Result<Option<End>, ZipError> {
    let Some(locator_at) = end_at.checked_sub(END64_LOCATOR_BYTES) else { return Ok(None) };
    let locator = &zip[locator_at..end_at];
    if !locator.starts_with(END64_LOCATOR) {
        return Ok(None);
    }
    // Its stated offset is off by what may stand before the archive, so the record is looked for where it must be.
    let at = locator_at.checked_sub(END64_BYTES).ok_or(ZipError::NotZip("its end record is cut off"))?;
    let record = &zip[at..locator_at];
    if !record.starts_with(END64) {
        return Err(ZipError::NotZip("its zip64 end record is not where it must be"));
    }
    Ok(Some(End {
        entries: u64_at(record, 32),
        directory_bytes: u64_at(record, 40),
        directory_offset: u64_at(record, 48),
        at,
    }))
}

fn central_entry(bytes: &[u8]) -> Result<(RawEntry<'_>, usize), ZipError> {
    const CUT: ZipError = ZipError::NotZip("its central directory is cut off");
    let header = bytes.get(..CENTRAL_BYTES).ok_or(CUT)?;
    if !header.starts_with(CENTRAL) {
        return Err(ZipError::NotZip("its central directory is damaged"));
    }
    let name_end = CENTRAL_BYTES + usize::from(u16_at(header, 28));
    let extra_end = name_end + usize::from(u16_at(header, 30));
    let end = extra_end + usize::from(u16_at(header, 32));
    let (name, extra) =
        (bytes.get(CENTRAL_BYTES..name_end).ok_or(CUT)?, bytes.get(name_end..extra_end).ok_or(CUT)?);
    if bytes.len() < end {
        return Err(CUT);
    }
    let mut sizes = [u64::from(u32_at(header, 24)), u32_at(header, 20).into(), u32_at(header, 42).into()];
    widen(&mut sizes, extra).ok_or(ZipError::NotZip("a zip64 field is cut off"))?;
    let entry = RawEntry {
        name,
        host: header[5],
        flags: u16_at(header, 8),
        method: u16_at(header, 10),
        crc32: u32_at(header, 16),
        compressed_bytes: sizes[1],
        bytes: sizes[0],
        external_attributes: u32_at(header, 38),
        local_offset: sizes[2],
    };
    Ok((entry, end))
}

/// Numbers that read 0xFFFFFFFF stand in the zip64 extra field, in this order: size, compressed size, offset.
fn widen(numbers: &mut [u64; 3], mut extra: &[u8]) -> Option<()> {
    const MARK: u64 = u32::MAX as u64;
    if !numbers.contains(&MARK) {
        return Some(());
    }
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let mut field = extra.get(4..4 + len)?;
        if id == ZIP64_EXTRA {
            for number in numbers.iter_mut().filter(|number| **number == MARK) {
                let (head, tail) = field.split_at_checked(8)?;
                *number = u64_at(head, 0);
                field = tail;
            }
            return Some(());
        }
        extra = &extra[4 + len..];
    }
    // No such field: then the number is really that large, and fails where it is used.
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
