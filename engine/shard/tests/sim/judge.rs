//! Which answers a request may get in a scenario, and when.
//!
//! Owns: the rules. Must not know: sockets, how an answer was parsed.

use faaster_limits::HEAD_TIMEOUT;

use crate::work::{Act, Work};

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// An invocation; `shared`: its function runs several calls in one instance.
    Call { work: Work, shared: bool, request_id: String },
    /// An event, acknowledged and run for nobody.
    Event { request_id: String },
    /// A function that does not exist.
    Missing,
    /// Something for the control thread, which echoes the target.
    Control { target: String },
    /// No HTTP at all.
    Malformed,
    /// A head without its end.
    Unfinished,
}

/// What may go wrong in a scenario beside the network.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Handlers that crash or babble.
    pub(crate) crashes: bool,
    /// Handlers that never answer.
    pub(crate) silence: bool,
    /// Runtimes that stop answering while they have nothing to do.
    pub(crate) hangs: bool,
    /// A funclet that refuses or dies.
    pub(crate) funclet: bool,
    /// Versions whose handler cannot be loaded.
    pub(crate) bad_versions: bool,
    /// Functions that are removed.
    pub(crate) removals: bool,
    /// The longest time-out of any function, in nanoseconds, and the shortest.
    pub(crate) timeout_ns_max: u64,
    pub(crate) timeout_ns_min: u64,
}

/// An answer in parts.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// From the last byte of the request to the last byte of the answer; `None` if the client itself was slow.
    pub(crate) took_ns: Option<u64>,
}

fn ns(limit: std::time::Duration) -> u64 {
    u64::try_from(limit.as_nanos()).expect("short")
}

/// Slack for everything that takes time beside queue and handler: slow starts of answers, delayed operations.
const SLACK_NS: u64 = 1_500_000_000;
/// A killed instance's end is waited for this long.
const END_NS: u64 = 1_000_000_000;

/// # Errors
/// What is wrong about the answer.
pub(crate) fn judge(asked: &Asked, answer: &Answer, trouble: &Trouble) -> Result<(), String> {
    // A call may wait once for its time-out and run once for it.
    let limit_ns = 2 * trouble.timeout_ns_max + END_NS + SLACK_NS;
    if let Some(took_ns) = answer.took_ns
        && took_ns > limit_ns
        && !matches!(asked, Asked::Unfinished)
    {
        return Err(format!("took {} ms, {} ms at most", took_ns / 1_000_000, limit_ns / 1_000_000));
    }
    match asked {
        Asked::Call { work, shared, request_id } => judge_call(work, *shared, request_id, answer, trouble),
        Asked::Event { request_id } => match answer.status {
            201 => Ok(()),
            404 if trouble.removals => named(answer, request_id),
            429 if trouble.funclet => named(answer, request_id),
            other => Err(format!("an event was answered with {other}")),
        },
        Asked::Missing => expect(answer.status == 404, "404 for a missing function"),
        Asked::Control { target } => {
            expect(answer.status == 200 && answer.body == target.as_bytes(), "the control thread's echo")
        }
        Asked::Malformed => expect(answer.status == 400, "400 for what is no HTTP"),
        Asked::Unfinished => {
            // The limit does not run while earlier requests are unanswered, so it has no upper bound here.
            let early = answer.took_ns.is_some_and(|took_ns| took_ns + SLACK_NS < ns(HEAD_TIMEOUT));
            expect(answer.status == 408 && !early, "408 after the time for a head")
        }
    }
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("expected {what}")) }
}

fn named(answer: &Answer, request_id: &str) -> Result<(), String> {
    expect(answer.head.contains(&format!("\r\nX-Easyfaas-Request-Id: {request_id}\r\n")), "this call's id")
}

fn judge_call(
    work: &Work,
    shared: bool,
    request_id: &str,
    answer: &Answer,
    trouble: &Trouble,
) -> Result<(), String> {
    named(answer, request_id)?;
    let failed = answer.head.contains("\r\nX-Easyfaas-Function-Error: Unhandled\r\n");
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(400)]);
    // Whoever waited in vain waited for the whole time-out, unless there was nothing to wait for.
    let waited = answer.took_ns.is_none_or(|took_ns| took_ns >= trouble.timeout_ns_min);
    let ran = answer.head.contains("\r\nX-Easyfaas-Function-Exectime: ");
    match (answer.status, failed) {
        (200, true) if !ran => {
            let excused = waited || trouble.funclet || trouble.bad_versions;
            let sentence = text.contains(request_id) && text.contains("not ready");
            expect(excused && sentence, "an instance in time")
        }
        (200, false) => {
            expect(work.act == Act::Echo, "a failure")?;
            expect(answer.body == work.result(), "this call's result")
        }
        (200, true) => {
            let own = match work.act {
                Act::Echo => false,
                Act::Fail => answer.body == work.result(),
                Act::Silent => text.contains("Task timed out after"),
                Act::Crash | Act::Garbage | Act::WrongId => is_death(&text),
                Act::TooLarge => text.contains("Function.ResponseSizeTooLarge"),
            };
            let neighbour = shared && trouble.crashes && is_death(&text);
            let lost = (trouble.funclet || trouble.hangs) && is_death(&text);
            let not_loaded = trouble.bad_versions && (text.contains("no such handler") || is_death(&text));
            let fine = own || neighbour || lost || not_loaded;
            expect(fine, &format!("another error than {text}"))
        }
        (429, true) => expect(waited || trouble.funclet, "a longer wait before giving up"),
        (404, true) => expect(trouble.removals, "a function that exists"),
        (500, true) => expect(trouble.funclet && text.contains("not on this node"), "no server error"),
        (other, _) => Err(format!("unexpected status {other}")),
    }
}

/// Whether an error says that the runtime ended under the call.
fn is_death(text: &str) -> bool {
    text.contains("\"errorType\":\"Runtime.") || text.contains("Process exited")
}
