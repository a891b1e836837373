//! Zstandard (RFC 8878): frame after frame, as tools write layers that can be read from the middle.
//!
//! Owns: what lies between frames. Must not know: what is packed.
//! A frame says how much of what was unpacked it refers back to; so much is kept in memory, and no more than a bound.
//! Checksums of frames are not looked at: layers have digests.

use std::io::{self, Read};

use faaster_limits::IMAGE_WINDOW_BYTES_MAX;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames of the user's own, magic numbers 0x184d2a50 to 0x184d2a5f: they hold nothing.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// See the module.
pub(crate) struct Frames<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(R),
    Within(Box<StreamingDecoder<WithHead<R>, FrameDecoder>>),
    /// All was read, or an error was given.
    Over,
}

impl<R: Read> Frames<R> {
    pub(crate) fn new(packed: R) -> Self {
        Self { state: State::Between(packed) }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Between(packed) => {
                    if let Some(frame) = next_frame(packed)? {
                        self.state = State::Within(Box::new(frame));
                    }
                }
                State::Within(mut frame) => {
                    let count = frame.read(buffer)?;
                    if count > 0 {
                        self.state = State::Within(frame);
                        return Ok(count);
                    }
                    self.state = State::Between(frame.into_inner().packed);
                }
            }
        }
    }
}

/// `None`: there is no more.
fn next_frame<R: Read>(mut packed: R) -> io::Result<Option<StreamingDecoder<WithHead<R>, FrameDecoder>>> {
    loop {
        let mut magic = Vec::with_capacity(4);
        packed.by_ref().take(4).read_to_end(&mut magic)?;
        let head: [u8; 4] = match magic.len() {
            0 => return Ok(None),
            4 => [magic[0], magic[1], magic[2], magic[3]],
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        if head[1..] == SKIPPABLE && head[0] & 0xf0 == 0x50 {
            let mut length = [0; 4];
            packed.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut packed.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        }
        if head != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no zstd frame where one should begin"));
        }
        let source = WithHead { head, given: 0, packed };
        let frame = StreamingDecoder::new_with_max_window_size(source, IMAGE_WINDOW_BYTES_MAX);
        return frame
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
    }
}

/// A reader whose first bytes were read already.
struct WithHead<R> {
    head: [u8; 4],
    given: usize,
    packed: R,
}

impl<R: Read> Read for WithHead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.head[self.given..];
        if rest.is_empty() {
            return self.packed.read(buffer);
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn packed(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Frames::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn frames_follow_each_other_and_what_is_the_user_s_own_is_skipped() {
        let own = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"own"].concat();
        let all = [&own[..], &packed(b"one "), &own, &packed(b""), &packed(b"two"), &own].concat();
        assert_eq!(unpacked(&all).unwrap(), b"one two");
        assert_eq!(unpacked(b"").unwrap(), b"");
        let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(unpacked(&packed(&large)).unwrap(), large);
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_an_error() {
        let whole = packed(&[7; 100_000]);
        for cut in [1, 3, 5, whole.len() / 2, whole.len() - 1] {
            assert!(unpacked(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(unpacked(&[&whole[..], b"rubbish"].concat()).is_err());
        assert!(unpacked(&[0x50, 0x2a, 0x4d, 0x18, 255, 255, 255, 255, 1]).is_err());
        assert!(unpacked(&[0x51, 0x2a, 0x4d, 0x18, 1]).is_err());
    }

    #[test]
    fn a_frame_that_would_keep_too_much_is_refused_before_it_does() {
        // Window descriptor 0xff: exponent 31, mantissa 7, so almost 4 TiB.
        let greedy = [&MAGIC[..], &[0x00, 0xff], &[1, 0, 0]].concat();
        let refused = unpacked(&greedy).unwrap_err();
        assert!(refused.to_string().to_lowercase().contains("window"), "{refused}");
    }
}
