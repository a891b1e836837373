//! What a server tells of the time that a request spent in it.
//!
//! Owns: nothing. Must not know: what the phases mean. Two forms are read: `Server-Timing` (W3C Server Timing, section 4),
//! as `queue;dur=0.1, claim;dur=2.5`, in milliseconds; and, where that is missing, FaaSter's
//! `X-Easyfaas-Function-Exectime: 12.345`, which is the time in the function and is called `run`. Hostile bytes are read
//! here: what is not understood is left out.

use std::time::Duration;

use super::head::value_of;
use crate::bounds::{DURATION_MAX, PHASE_NAME_BYTES_MAX, PHASES_MAX};

/// Name of the only phase that [`EXEC_TIME`] tells.
pub const RUN: &str = "run";
const SERVER_TIMING: &[u8] = b"server-timing";
const EXEC_TIME: &[u8] = b"x-easyfaas-function-exectime";

/// The phases in a whole head, in its order.
pub(super) fn phases_of(head: &[u8]) -> Vec<(String, Duration)> {
    let lines = || head.split(|byte| *byte == b'\n');
    let mut phases: Vec<(String, Duration)> =
        lines().filter_map(|line| value_of(line, SERVER_TIMING)).flat_map(metrics).collect();
    if phases.is_empty() {
        let times = lines().filter_map(|line| milliseconds(value_of(line, EXEC_TIME)?));
        phases.extend(times.map(|time| (RUN.to_owned(), time)).take(1));
    }
    phases.truncate(PHASES_MAX);
    phases
}

/// `name[;parameter[=value]]...`, separated by commas; metrics without a duration tell no time.
fn metrics(value: &[u8]) -> Vec<(String, Duration)> {
    let mut found = Vec::new();
    for metric in split_unquoted(value, b',') {
        let mut parts = split_unquoted(metric, b';').into_iter();
        let name = parts.next().unwrap_or_default().trim_ascii();
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || name.len() > PHASE_NAME_BYTES_MAX || !name.iter().all(is_token) {
            continue;
        }
        let duration = parts.find_map(|part| {
            let at = part.iter().position(|byte| *byte == b'=')?;
            let is_duration = part[..at].trim_ascii().eq_ignore_ascii_case(b"dur");
            is_duration.then(|| milliseconds(part[at + 1..].trim_ascii()))
        });
        if let Some(Some(duration)) = duration {
            found.push((String::from_utf8_lossy(name).into_owned(), duration));
        }
    }
    found
}

/// Splits at separators outside of quoted strings.
fn split_unquoted(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut begin, mut at, mut quoted) = (Vec::new(), 0, 0, false);
    while let Some(byte) = value.get(at) {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            byte if *byte == separator && !quoted => {
                parts.push(&value[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&value[begin..]);
    parts
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches('"');
    let millis: f64 = text.parse().ok()?;
    let duration = Duration::try_from_secs_f64(millis / 1e3).ok()?;
    (duration <= DURATION_MAX).then_some(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(lines: &str) -> Vec<(String, u128)> {
        let phases = phases_of(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes());
        phases.into_iter().map(|(name, time)| (name, time.as_micros())).collect()
    }

    #[test]
    fn phases_are_read_in_their_order() {
        let line =
            "Server-Timing: queue;dur=0.1, claim;dur=2.5,attach;dur=0, load ; dur = 10 ,run;dur=1.25\r\n";
        let wanted = [("queue", 100), ("claim", 2500), ("attach", 0), ("load", 10_000), ("run", 1250)];
        assert_eq!(told(line), wanted.map(|(name, time)| (name.to_owned(), time)));
        let others =
            "server-timing: miss, db;desc=\"a, b;dur=9\\\"\";DUR=\"3\"\r\nServer-Timing: app;dur=4;dur=5\r\n";
        assert_eq!(told(others), [("db".to_owned(), 3000), ("app".to_owned(), 4000)]);
    }

    #[test]
    fn the_time_in_the_function_is_told_where_there_is_nothing_better() {
        assert_eq!(told("X-Easyfaas-Function-Exectime: 12.345\r\n"), [("run".to_owned(), 12_345)]);
        let both = "X-Easyfaas-Function-Exectime: 12.345\r\nServer-Timing: load;dur=1\r\n";
        assert_eq!(told(both), [("load".to_owned(), 1000)]);
    }

    #[test]
    fn what_is_no_time_is_left_out() {
        for line in [
            "",
            "x;dur=",
            "x;dur=-1",
            "x;dur=inf",
            "x;dur=NaN",
            "x;dur=1e99",
            ";dur=1",
            "a b;dur=1",
            "x;dur=1\"",
            "\"",
        ] {
            let found = told(&format!("Server-Timing: {line}\r\n"));
            assert!(found.is_empty() || line == "x;dur=1\"", "{line}: {found:?}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("p{n};dur=1")).collect();
        assert_eq!(told(&format!("Server-Timing: {}\r\n", many.join(","))).len(), PHASES_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut line = b"HTTP/1.1 200\r\nServer-Timing: ".to_vec();
            line.extend_from_slice(&head);
            let phases = phases_of(&line);
            prop_assert!(phases.len() <= PHASES_MAX && phases.iter().all(|(_, time)| *time <= DURATION_MAX));
        }
    }
}
