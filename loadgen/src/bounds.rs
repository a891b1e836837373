//! Every bound of the load generator, by name.
//!
//! Owns: nothing but constants. Must not know: the rest. Apart from engine/limits, whose bounds are the engine's: this
//! tool is used against other servers as well.

use std::time::Duration;

/// Bytes of a response head; more is an error of the server.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a chunk-size line.
pub const CHUNK_LINE_BYTES_MAX: usize = 4096;
/// Bytes of all trailer lines of one response.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Interim (1xx) responses before the real one.
pub const INTERIM_MAX: usize = 16;
/// Requests of one connection that may be unanswered at once.
pub const PIPELINE_MAX: usize = 256;
/// Connections of one run.
pub const CONNECTIONS_MAX: usize = 100_000;
/// Threads of one run.
pub const THREADS_MAX: usize = 64;
/// Requests per second that can be asked for.
pub const RATE_MAX: f64 = 50_000_000.0;
/// Bytes of a request, headers and body.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest run.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest time that a histogram tells apart; longer counts as this.
pub const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Descriptors that the tool needs beside its connections: rings, files, standard streams.
pub const DESCRIPTORS_SPARE: u64 = 64;
/// Connections that are being opened at once before the start: fewer than a listener's usual backlog.
pub const CONNECTS_AT_ONCE: usize = 64;
/// Bytes of a file that holds a body or an expected body.
pub const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Requests that a thread keeps signed before they are due.
pub const SIGNED_AHEAD_MAX: usize = 64;
/// Bytes of them.
pub const SIGNED_AHEAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A signature is made anew after this; servers take it for 5 minutes.
pub const SIGNATURE_SECS_MAX: u64 = 120;
/// A request is made ahead only if there is this much time left before the next send.
pub const SIGNING_ROOM: Duration = Duration::from_micros(30);
/// Functions that are deployed to be called once.
pub const COLD_FUNCTIONS_MAX: u64 = 10_000;
/// Of them, those under way at once.
pub const COLD_CONNECTIONS_MAX: usize = 1_000;
/// Phases of one answer that are counted, and different ones of a run.
pub const PHASES_MAX: usize = 16;
/// Bytes of a phase's name.
pub const PHASE_NAME_BYTES_MAX: usize = 40;

/// Entries of a thread's submission queue.
pub const RING_ENTRIES: u32 = 4096;
/// Entries of a thread's completion queue.
pub const RING_COMPLETIONS: u32 = 16_384;
/// Buffers that the kernel fills with responses, per thread. A power of two.
pub const RECEIVE_BUFFERS: u16 = 1024;
/// Bytes of one of them.
pub const RECEIVE_BUFFER_BYTES: usize = 8192;
/// Connections that the null server has open at once, if the descriptor limit lets it.
pub const NULL_SERVER_CONNECTIONS_MAX: u32 = 65_536;

/// A thread looks after time-outs, ends and seconds at least this often.
pub const TICK: Duration = Duration::from_millis(50);
/// Before a send that is due this soon, and after a send while an answer is missing, the thread does not sleep: waking up
/// takes a virtual machine up to about this long, and that must not count as the server's time.
pub const SPIN: Duration = Duration::from_millis(1);
/// Threads have opened their connections within this, beside the connect time-out.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between the last thread's being ready and the first send.
pub const START_MARGIN: Duration = Duration::from_millis(20);
/// The same where the server's processes are looked for in it: there may be thousands.
pub const SEARCHED_START_MARGIN: Duration = Duration::from_millis(250);
/// A server's processes have been found when the measured time begins, if the search begins this much earlier.
pub const SEARCH_MARGIN: Duration = Duration::from_millis(15);
/// A full backlog of a unix listener is tried again after this.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(1);
