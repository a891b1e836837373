//! The log of one call as it is returned to its caller: START, up to 4 KiB of output, END, REPORT.
//!
//! Owns: the text, its clipping and Go's number formats (FaaSter rtctrl/request.go, logstore.go). Must not know: where
//! output comes from, or when a call ends.

use std::fmt::Write as _;

use base64::Engine as _;
use faaster_limits::LOG_TAIL_BYTES_MAX;

use super::json;

/// A tail under way. FaaSter keeps the first bytes, not the last, and START counts among them.
#[derive(Debug)]
pub struct LogTail {
    text: Vec<u8>,
    left: usize,
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// From handing the event over to the answer, whole milliseconds.
    pub duration_ms: u64,
    /// The function's setting, MB.
    pub memory_mb: u32,
    /// Most memory that its container ever held, bytes.
    pub memory_peak_bytes: u64,
}

impl LogTail {
    /// Begins with the START line.
    pub fn new(request_id: &str, version: &str) -> Self {
        let mut tail = Self { text: Vec::new(), left: LOG_TAIL_BYTES_MAX };
        append_start(&mut tail.text, request_id, version);
        tail.left = tail.left.saturating_sub(tail.text.len());
        tail
    }

    /// Adds output. What is over the bound is dropped; a line cut through gets a line feed.
    pub fn push(&mut self, output: &[u8]) {
        let kept = &output[..output.len().min(self.left)];
        self.text.extend_from_slice(kept);
        self.left -= kept.len();
        if kept.len() < output.len() && self.text.last().is_some_and(|last| *last != b'\n') {
            self.text.push(b'\n');
        }
    }

    /// Ends with the END and REPORT lines.
    pub fn finish(mut self, request_id: &str, usage: Usage) -> Vec<u8> {
        // Output that ended without a line feed would run into END; FaaSter lets it.
        append_end(&mut self.text, request_id, usage.memory_mb);
        append_report(&mut self.text, request_id, usage);
        self.text
    }
}

/// `START RequestID: <id> Version: <version>\n`
pub fn append_start(out: &mut Vec<u8>, request_id: &str, version: &str) {
    out.extend_from_slice(format!("START RequestID: {request_id} Version: {version}\n").as_bytes());
}

/// `END RequestID: <id>\tMemory Spec Size: 128MB\n`
pub fn append_end(out: &mut Vec<u8>, request_id: &str, memory_mb: u32) {
    out.extend_from_slice(
        format!("END RequestID: {request_id}\tMemory Spec Size: {memory_mb}MB\n").as_bytes(),
    );
}

/// `REPORT RequestID: <id>\tDuration: 3ms\tBilled Duration: 100ms\tMax Memory Used: 26.5M`, without a line feed.
pub fn append_report(out: &mut Vec<u8>, request_id: &str, usage: Usage) {
    let billed = usage.duration_ms.div_ceil(100).saturating_mul(100);
    out.extend_from_slice(
        format!(
            "REPORT RequestID: {request_id}\tDuration: {}\tBilled Duration: {}\tMax Memory Used: {}",
            go_duration(usage.duration_ms),
            go_duration(billed),
            byte_size(usage.memory_peak_bytes)
        )
        .as_bytes(),
    );
}

/// Value of the header [`super::headers::LOG_RESULT`].
pub fn append_base64(out: &mut Vec<u8>, tail: &[u8]) {
    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(tail).as_bytes());
}

/// The answer with `Log-To-Body: true`: `{"FunctionError":"Unhandled","LogResult":"<text>","Payload":"<result>"}`, the
/// first two only where there are any.
pub fn append_log_body(out: &mut Vec<u8>, function_error: &str, log: &[u8], payload: &[u8]) {
    out.push(b'{');
    for (name, text) in [("FunctionError", function_error.as_bytes()), ("LogResult", log)] {
        if !text.is_empty() {
            json::append(out, name);
            out.push(b':');
            json::append_text(out, text);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"Payload\":");
    json::append_text(out, payload);
    out.push(b'}');
}

/// Value of the header [`super::headers::EXEC_TIME`]: milliseconds with three decimals, rounded.
pub fn append_exec_time(out: &mut Vec<u8>, nanoseconds: u64) {
    let microseconds = nanoseconds.saturating_add(500) / 1000;
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(number.format(microseconds / 1000).as_bytes());
    out.push(b'.');
    let fraction = microseconds % 1000;
    for digit in [fraction / 100, fraction / 10 % 10, fraction % 10] {
        out.push(b'0' + u8::try_from(digit).expect("a digit"));
    }
}

/// Go's `time.Duration.String()` for whole milliseconds: `0s`, `3ms`, `1.142s`, `1m0s`, `1h0m0.5s`.
pub fn go_duration(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let mut out = String::new();
    let ok = if hours > 0 {
        write!(out, "{hours}h{minutes}m")
    } else if minutes > 0 {
        write!(out, "{minutes}m")
    } else {
        Ok(())
    };
    ok.expect("a String takes all text");
    let seconds = format!("{}.{:03}", ms / 1000 % 60, ms % 1000);
    out.push_str(seconds.trim_end_matches('0').trim_end_matches('.'));
    out.push('s');
    out
}

/// FaaSter's `bytefmt.ByteSize`: `0`, `512B`, `352K`, `26.5M`. At most one decimal, none if it is 0.
pub fn byte_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    if bytes == 0 {
        return "0".to_owned();
    }
    let (size, unit) = UNITS.into_iter().find(|(size, _)| bytes >= *size).unwrap_or((1, "B"));
    // Whole tenths, rounded; in integers, so that no size is out of a float's reach.
    let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
