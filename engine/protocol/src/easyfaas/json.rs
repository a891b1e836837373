//! JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators are escaped, control characters by number.
//!
//! Owns: the escapes only; the values are equal to any other encoder's. Must not know: what is encoded.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        for (at, found) in fragment.match_indices(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&fragment.as_bytes()[written..at])?;
            let code = found.chars().next().map_or(0, u32::from);
            write!(writer, "\\u{code:04x}")?;
            written = at + found.len();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let code = match escape {
            CharEscape::Quote => return writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return writer.write_all(b"\\\\"),
            CharEscape::Solidus => return writer.write_all(b"/"),
            CharEscape::LineFeed => return writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => return writer.write_all(b"\\r"),
            CharEscape::Tab => return writer.write_all(b"\\t"),
            CharEscape::Backspace => 8,
            CharEscape::FormFeed => 12,
            CharEscape::AsciiControl(byte) => byte,
        };
        write!(writer, "\\u{code:04x}")
    }
}

/// Appends `value`.
pub fn append<T: ?Sized + Serialize>(out: &mut Vec<u8>, value: &T) {
    let mut serializer = Serializer::with_formatter(out, GoFormatter);
    value.serialize(&mut serializer).expect("the dialect's types serialize, and a Vec takes all bytes");
}

/// Appends a string; bytes that are no UTF-8 become U+FFFD, as in Go.
pub fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    append(out, &*String::from_utf8_lossy(text));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_gos() {
        let mut out = Vec::new();
        append_text(&mut out, "<x>&\u{2028}\"\\/\n\t\u{8}\u{c}\u{1}h\u{e9} ☃".as_bytes());
        let expected = r#""\u003cx\u003e\u0026\u2028\"\\/\n\t\u0008\u000c\u0001hé ☃""#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            append_text(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
