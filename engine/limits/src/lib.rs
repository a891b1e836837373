//! Every bound of the engine, by name, in one place.
//!
//! Owns: nothing but constants. Must not know: any other crate.
//! A constant that ends in `_MAX` is a hard bound; crossing it is answered with a counted, clear refusal,
//! never with growth. Relations between bounds are asserted at compile time at the end of this file.
#![forbid(unsafe_code)]

use std::time::Duration;

// --- Payloads (DESIGN section 12; the Lambda contract's numbers) -----------------------------------------

/// Bytes of the event of a synchronous invocation.
pub const SYNC_REQUEST_BYTES_MAX: usize = 6_291_456;
/// Bytes of the result of a synchronous invocation.
pub const RESPONSE_BYTES_MAX: usize = 6_291_556;
/// Bytes of the event of an asynchronous invocation.
pub const ASYNC_REQUEST_BYTES_MAX: usize = 1_048_576;
/// Bytes of an uploaded zip.
pub const ZIP_BYTES_MAX: usize = 50 * 1024 * 1024;
/// Bytes of all the files of a zip, unpacked.
pub const UNZIPPED_BYTES_MAX: u64 = 250 * 1024 * 1024;
/// Files and directories in a zip.
pub const ZIP_ENTRIES_MAX: usize = 20_000;
/// Bytes of a path inside a zip.
pub const ZIP_PATH_BYTES_MAX: usize = 1024;
/// Bytes of the body of a control request: a zip in base64 and its JSON around it.
pub const CONTROL_BODY_BYTES_MAX: usize = ZIP_BYTES_MAX / 3 * 4 + 64 * 1024;
/// Bytes of output that a log tail returns.
pub const LOG_TAIL_BYTES_MAX: usize = 4096;
/// Bytes of log that are kept in memory for one function, for `faaster logs`.
pub const LOG_RING_BYTES_MAX: usize = 256 * 1024;
/// Bytes of log that are kept on disk for all functions, unless configured; the oldest go first.
pub const LOG_DISK_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
/// Same for one function.
pub const LOG_DISK_PER_FUNCTION_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Least that may be configured for one function: a segment then holds the largest chunk that a shard hands over.
pub const LOG_DISK_PER_FUNCTION_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// A function's log on disk is cut into so many parts; the oldest goes whole.
pub const LOG_SEGMENTS_PER_FUNCTION: u64 = 4;
/// Functions that have a log on disk.
pub const LOG_FUNCTIONS_ON_DISK_MAX: usize = 100_000;
/// Chunks of log that wait to be written; with more, they are counted and not kept on disk.
pub const LOG_WRITES_MAX: usize = 8192;
/// Bytes of them.
pub const LOG_WRITES_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of packages, packed and unpacked, that are kept on disk, unless configured.
pub const CODE_DISK_BYTES_DEFAULT: u64 = 20 * 1024 * 1024 * 1024;
/// Longest that unpacked code may be told to wait for the next call.
pub const CODE_IDLE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Places of the table that says which packages are in use; packages of one place are in use together.
pub const CODE_USE_PLACES: usize = 65_536;
/// Instances that are ended so that code gets room on disk have ended after this, or there is no room.
pub const CODE_ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether they have.
pub const CODE_ROOM_POLL: Duration = Duration::from_millis(10);
/// Between two looks for room while all code is in use.
pub const CODE_ROOM_RETRY: Duration = Duration::from_millis(100);
/// Functions whose log is kept in memory at once; the one written longest ago makes room.
pub const LOG_RINGS_MAX: usize = 256;

// --- HTTP ------------------------------------------------------------------------------------------------

/// Bytes of a request head: request line, headers and the empty line.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of one request.
pub const HEADERS_MAX: usize = 96;
/// Bytes of a request target.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a request method; the longest registered one has 17.
pub const METHOD_BYTES_MAX: usize = 32;
/// Empty lines before a request line that are skipped (RFC 9112 section 2.2).
pub const EMPTY_LINES_MAX: usize = 4;
/// Bytes of a chunk-size line or a trailer line of a chunked body.
pub const CHUNK_LINE_BYTES_MAX: usize = 4096;
/// Bytes of chunk-size lines of one body beyond a fair share per chunk (16 bytes and twice its data): a body that is
/// all chunk extensions ends here.
pub const CHUNK_OVERHEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of all the trailer lines of one chunked body.
pub const TRAILERS_BYTES_MAX: usize = 16 * 1024;
/// Pipelined requests of one connection that may be unanswered at once; beyond it the engine stops reading.
pub const PIPELINE_DEPTH_MAX: usize = 64;
/// Open client connections of one shard (configurable; bounded by the descriptor limit as well).
pub const CONNECTIONS_PER_SHARD_MAX: usize = 16_384;
/// A request head must be complete this long after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A body must deliver its next bytes this long after the last ones.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// A whole body must be there after this long, whatever its pace.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// A keep-alive connection with nothing to do is closed after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that does not take its answer is dropped after this long without progress.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// After an error answer the engine reads and drops what still comes for this long, so that the answer arrives.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

// --- Shards ----------------------------------------------------------------------------------------------

/// Shards of one engine.
pub const SHARDS_MAX: usize = 64;
/// Entries of a shard's submission queue.
pub const RING_ENTRIES: u32 = 1024;
/// Entries of a shard's completion queue.
pub const RING_COMPLETIONS: u32 = 8192;
/// Provided buffers for client connections, per shard. A power of two.
pub const CLIENT_BUFFERS: u16 = 512;
/// Bytes of one client buffer.
pub const CLIENT_BUFFER_BYTES: usize = 4096;
/// Provided buffers for instance sockets, per shard. A power of two.
pub const INSTANCE_BUFFERS: u16 = 128;
/// Bytes of one instance buffer.
pub const INSTANCE_BUFFER_BYTES: usize = 32 * 1024;
/// Bytes of a small buffer that a shard keeps for its next use: what a client buffer holds, and an answer's head.
pub const SPARE_BUFFER_BYTES: usize = CLIENT_BUFFER_BYTES + 1024;
/// Small buffers that a shard keeps.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// Uploads that a shard keeps for the next request whose body comes in pieces.
pub const SPARE_UPLOADS_MAX: usize = 64;
/// Messages in one direction between two threads (shard to shard, control to shard).
pub const MAILBOX_MAX: usize = 4096;
/// Bytes of requests and answers that a shard holds outside of its provided buffers.
pub const HELD_BYTES_PER_SHARD_MAX: usize = 512 * 1024 * 1024;
/// Bytes that may wait for a client to take them before the engine stops reading its requests.
pub const OUTBOX_HIGH_BYTES: usize = 1024 * 1024;
/// A body is reserved whole up to this size, then it grows as it comes.
pub const BODY_RESERVE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Boxes for crossing calls that a shard keeps for the next ones.
pub const ERRANDS_KEPT_MAX: usize = 1024;
/// An answer above this counts among what a shard holds, until its client has taken it; smaller ones are bounded by the
/// number of connections.
pub const ANSWER_BYTES_UNCOUNTED_MAX: usize = 64 * 1024;
/// Control requests under way per shard.
pub const CONTROL_IN_FLIGHT_MAX: usize = 256;
/// Control requests under way on the control thread, all shards together.
pub const CONTROL_REQUESTS_MAX: usize = 1024;
/// Bytes of request bodies that the control thread holds at once.
pub const CONTROL_HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Requests for logs that wait for new lines at once.
pub const LOG_POLLS_MAX: usize = 256;
/// Shards and funclets answer the control thread's questions within this.
pub const CONTROL_REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// A deploy is acknowledged by every shard within this, or answered as not yet in force.
pub const DEPLOY_TIMEOUT: Duration = Duration::from_secs(10);
/// A request for logs waits this long for new lines.
pub const LOG_POLL_MAX: Duration = Duration::from_secs(20);
/// Entries of one page of a listing.
pub const LIST_PAGE_MAX: usize = 1000;
/// Entries of one page of a listing that names no number (AWS contract).
pub const LIST_PAGE_DEFAULT: usize = 50;
/// Uploads that wait for the code thread.
pub const CODE_JOBS_MAX: usize = 16;
/// Registry operations that wait for the journal thread.
pub const JOURNAL_OPERATIONS_MAX: usize = 1024;
/// Registry writes that one commit carries.
pub const JOURNAL_GROUP_MAX: usize = 256;
/// Unused code is looked for this often, and must have been unused for as long; after a restart uses are known up to this.
pub const CODE_COLLECT_INTERVAL: Duration = Duration::from_secs(30);
/// As often at most, where code may rest for a short time only.
pub const CODE_COLLECT_INTERVAL_MIN: Duration = Duration::from_secs(1);

// --- Functions and scheduling ----------------------------------------------------------------------------

/// Layers of one function (AWS contract).
pub const LAYERS_PER_FUNCTION_MAX: usize = 5;
/// Versions of all layers of one node.
pub const LAYER_VERSIONS_MAX: usize = 10_000;
/// Functions (versions counted apart) on one node.
pub const FUNCTIONS_MAX: usize = 100_000;
/// Bytes of a function's name.
pub const FUNCTION_NAME_BYTES_MAX: usize = 140;
/// Bytes of an account id as it comes in a header.
pub const ACCOUNT_ID_BYTES_MAX: usize = 128;
/// Digits of a function's version number.
pub const VERSION_DIGITS_MAX: usize = 20;
/// Bytes of a function identifier in a request path, percent-decoded: name, partial or whole BRN.
pub const IDENTIFIER_BYTES_MAX: usize = 512;
/// Bytes of a caller's own request id; a longer one is replaced by ours.
pub const REQUEST_ID_BYTES_MAX: usize = 63;
/// Bytes of a function's handler (AWS contract).
pub const HANDLER_BYTES_MAX: usize = 128;
/// Bytes of a function's description (AWS contract).
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// Bytes of all environment variables of a function (AWS contract).
pub const ENVIRONMENT_BYTES_MAX: usize = 4096;
/// Seconds a function may run.
pub const TIMEOUT_SECS_MAX: u32 = 900;
/// Seconds a function runs if its create says nothing (FaaSter's default).
pub const TIMEOUT_SECS_DEFAULT: u32 = 5;
/// Least and most memory of a function, in MiB.
pub const MEMORY_MB_MIN: u32 = 128;
/// See [`MEMORY_MB_MIN`].
pub const MEMORY_MB_MAX: u32 = 10_240;
/// Invocations at once in one instance.
pub const CONCURRENCY_MAX: u32 = 1024;
/// Instances of one function, unless it says less.
pub const INSTANCES_PER_FUNCTION_MAX: u32 = 1000;
/// Instances on one shard.
pub const INSTANCES_PER_SHARD_MAX: usize = 4096;
/// Calls that wait for one function on its home shard.
pub const QUEUE_PER_FUNCTION_MAX: usize = 1024;
/// Asynchronous calls that wait in memory, per shard.
pub const ASYNC_QUEUE_MAX: usize = 1024;
/// Bytes on their way to one instance; with more, calls wait in the function's queue.
pub const INSTANCE_SEND_BYTES_MAX: usize = 8 * 1024 * 1024;

// --- Frame protocol (docs/protocol.md) -------------------------------------------------------------------

/// Bytes of a frame's meta object.
pub const FRAME_META_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an event in one frame.
pub const FRAME_EVENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a result that an invocation may send before it is granted more.
pub const RESPONSE_CREDIT_BYTES: u32 = 256 * 1024;
/// Bytes of one part of a large result; also what a runtime must have sent before it is granted more.
pub const RESPONSE_PART_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the body of any frame that a runtime sends.
pub const RUNTIME_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one `log` frame.
pub const LOG_FRAME_BYTES_MAX: usize = 64 * 1024;

// --- Root file systems made from images ------------------------------------------------------------------

/// Bytes that all layers of an image unpack to.
pub const IMAGE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Files, directories and links of all layers of an image.
pub const IMAGE_ENTRIES_MAX: u64 = 2_000_000;
/// Bytes that one frame of a zstd layer may refer back to: 27 bits, the most that the zstd program takes unasked.
pub const IMAGE_WINDOW_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Layers of an image; overlay file systems take no more than 128 either.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Members of an archive among which the parts of an image are looked for.
pub const IMAGE_PARTS_MAX: usize = 4096;
/// Bytes of a manifest, an index or a configuration of an image.
pub const IMAGE_JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of one header in an archive that carries a long name; it is read into memory.
pub const IMAGE_HEADER_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a path in an image.
pub const IMAGE_PATH_BYTES_MAX: usize = 4096;
/// Components of a path in an image: what is unpacked must be removable with a descriptor for each.
pub const IMAGE_DEPTH_MAX: usize = 128;
/// Indexes of an image that name another one.
pub const IMAGE_INDEX_DEPTH_MAX: usize = 3;
/// Bytes of the name of a root file system.
pub const ROOTFS_NAME_BYTES_MAX: usize = 64;

// --- Containers ------------------------------------------------------------------------------------------

/// Slots (containers) of one funclet.
pub const SLOTS_MAX: usize = 3000;
/// Runtimes (languages) of one node.
pub const RUNTIMES_MAX: usize = 64;
/// Funclets of one node.
pub const FUNCLETS_MAX: usize = 16;
/// Claims that one funclet takes per second from one engine; a compromised engine gets no more.
pub const CLAIMS_PER_SECOND_MAX: u32 = 20_000;
/// Lines that one funclet writes to the log per second; an engine that has been taken over causes no more.
pub const NOTICES_PER_SECOND_MAX: u32 = 50;
/// Processes and threads in one container.
pub const PIDS_PER_CONTAINER_MAX: u32 = 1024;
/// A prepared container must have sent `hello` this long after its birth, unless the configuration says otherwise.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long boots that nobody waits for stand aside for claims that follow one upon the other; then they compete for as long.
pub const BOOT_ASIDE_MAX: Duration = Duration::from_millis(200);
/// A funclet that was asked to freeze or thaw a container must have answered after this.
pub const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
/// An instance that dies by itself so soon after a call has a successor started before the next one comes.
pub const REPLACE_WITHIN: Duration = Duration::from_secs(10);
/// Pause before instances that a function keeps and could not get are asked for again.
pub const KEEP_RETRY: Duration = Duration::from_secs(1);
/// Bytes of /tmp in a container, default.
pub const TMP_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;
/// Inodes of /tmp in a container.
pub const TMP_INODES_MAX: u64 = 65_536;
/// MiB of /tmp that a claim may ask for.
pub const TMP_MB_MAX: u32 = 10_240;
/// Bytes of memory of a container before it is claimed.
pub const BOOT_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;
/// Processes and threads of a container before it is claimed.
pub const BOOT_PIDS: u32 = 128;
/// Prepared containers of one runtime take no more than this part of the node's memory, unless the settings say how many.
pub const POOL_PART_OF_MEMORY: u64 = 64;
/// What a prepared container is taken to need: one that has booted an interpreter of its own,
pub const PREPARED_BYTES_BOOTED: u64 = 16 * 1024 * 1024;
/// one whose runtime is a fork server's child,
pub const PREPARED_BYTES_FORKED: u64 = 5 * 1024 * 1024;
/// and one whose program starts when it is claimed.
pub const PREPARED_BYTES_PARKED: u64 = 1024 * 1024;
/// Orders that a fork server has before it; the kernel queues ten messages (net.unix.max_dgram_qlen).
pub const FORK_ORDERS_MAX: usize = 4;
/// Children of one fork server before another takes its place: they share an address layout and a hash seed.
pub const FORKS_PER_SERVER_MAX: u32 = 1000;
/// Failures of a fork server in a row after which its runtime's containers boot one by one.
pub const FORK_SERVER_TRIES_MAX: u32 = 3;
/// Processes of a fork server: itself, and children on their way into their containers.
pub const FORK_SERVER_PIDS: u32 = 64;
/// Bytes of a `hello` frame's meta object.
pub const HELLO_META_BYTES_MAX: usize = 4096;
/// Bytes of a runtime's output that a funclet shows when it could not be booted.
pub const BOOT_OUTPUT_BYTES_MAX: usize = 2048;
/// Longest pause between tries to boot a runtime that keeps failing; the first pause is [`BOOT_BACKOFF_MIN`].
pub const BOOT_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// See [`BOOT_BACKOFF_MAX`].
pub const BOOT_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// After a claim, a pool that is a quarter full is refilled only after this long without another: booting an interpreter
/// takes the core that the claimed one needs for its first answer.
pub const POOL_REFILL_QUIET: Duration = Duration::from_millis(10);
/// The same for a pool that is half full, which can serve some more claims before its boots would disturb them.
pub const POOL_REFILL_REST: Duration = Duration::from_millis(40);
/// A full node keeps one part in so many of its memory free for prepared containers, or what the least of all pools need.
pub const POOL_ROOM_PART: u64 = 8;
/// Flows of dead containers that are listed before they are forgotten; what is more is listed again then.
pub const FLOWS_FORGOTTEN_AT_ONCE_MAX: usize = 4096;
/// How often they are listed: more than enough for all that a kernel tracks (nf_conntrack_max is 262,144 at most by default).
pub const FLOW_LISTINGS_MAX: u32 = 128;
/// Bytes of a frozen container's memory that are moved to swap at a time.
pub const RECLAIM_CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Prepared containers that demand may raise one runtime's pool to, unless the configuration says otherwise.
pub const POOL_MAX_DEFAULT: u32 = 64;
/// A quarter of what demand raised a pool by is given up so long after the latest peak, unless the configuration says otherwise.
pub const POOL_FALL_AFTER: Duration = Duration::from_secs(60);
/// Claims that wait in one funclet, for memory or for a container.
pub const CLAIMS_WAITING_MAX: usize = 1024;
/// Longest that a claim may wait, whatever deadline it names.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_secs(900);
/// Events that wait in a funclet for an engine that does not read; with more, the channel is given up.
pub const CHANNEL_EVENTS_MAX: usize = 2 * SLOTS_MAX + 1024;
/// Open channels of one funclet: those of one engine, and of its successor while it starts.
pub const FUNCLET_CHANNELS_MAX: usize = 2 * (SHARDS_MAX + 1);
/// A dead container's cgroups must be gone after this long; else its slot is put aside.
pub const CGROUP_REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Open descriptors that a funclet and an engine have room for from their start, as far as they may have so many.
pub const DESCRIPTORS_EXPECTED: u64 = 16_384;
/// Descriptors that a function's process may have open unless it raises its limit itself.
pub const FUNCTION_FDS_DEFAULT: u64 = 1024;
/// Descriptors that it may raise its limit to.
pub const FUNCTION_FDS_MAX: u64 = 65_536;
/// Bytes of the system call filters that a container's init reads.
pub const INIT_FILTERS_BYTES_MAX: usize = 32 * 1024;
/// So long after a claim that had to wait for a fork server's child, moves into cgroups are kept cheap for the next one.
pub const GROUPS_WARM_FOR: Duration = Duration::from_secs(1);
/// By a write this often: an RCU grace period takes longer.
pub const GROUPS_WARM_INTERVAL: Duration = Duration::from_millis(4);
/// Bytes of the message with which a container's init is told how to assemble it.
pub const INIT_PLAN_BYTES_MAX: usize = 4096;

/// So long a birth waits for a network namespace that another thread makes for it, before it makes its own.
pub const NAMESPACE_WAIT_MAX: Duration = Duration::from_millis(1);
/// So long after a claim that waited for its container a network namespace is made for the next such claim. The first
/// one's boot needs the processors more.
pub const NETWORK_SPARE_AFTER: Duration = Duration::from_millis(5);
/// So long after the last such claim that namespace is kept.
pub const NETWORK_SPARE_FOR: Duration = Duration::from_secs(10);
/// Networks of ended containers that wait for the next one of their account, each some 0.4 MB of the kernel's memory.
pub const NETWORKS_KEPT_MAX: usize = 64;
/// So many do while as many claims wait, on a node whose containers end for them; and so many may be looked at.
pub const NETWORKS_KEPT_IN_DEMAND_MAX: usize = 512;
/// So long after the first look at one in which there are sockets without addresses comes the second: the kernel takes
/// closed ones away after an RCU grace period.
pub const NETWORK_LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// So long each of them waits.
pub const NETWORK_KEPT_FOR: Duration = Duration::from_secs(10);
/// So many are let go at once, and the next a pause later: to take one apart keeps a processor for some milliseconds.
pub const NETWORKS_LET_GO_AT_ONCE_MAX: usize = 4;
pub const NETWORKS_LET_GO_PAUSE: Duration = Duration::from_millis(50);
/// So long a node has to hear of one account only before containers that nobody waits for get networks of that one's.
pub const ACCOUNT_ALONE_FOR: Duration = Duration::from_secs(10);
/// Rules of the network, and what the host was set to for it, are looked at this often.
pub const NETWORK_WATCH_INTERVAL: Duration = Duration::from_secs(1);

// --- Netlink ---------------------------------------------------------------------------------------------

/// Requests of one netlink send: with more, the kernel's answers do not fit into the socket's receive buffer.
pub const NETLINK_SEND_MESSAGES_MAX: usize = 64;
/// Bytes of one netlink send; the kernel refuses what is larger than a socket's send buffer (208 KiB by default).
pub const NETLINK_SEND_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one nftables transaction, which cannot be cut into several sends.
pub const NETLINK_TRANSACTION_BYTES_MAX: usize = 192 * 1024;
/// Bytes of one answer of the kernel; it makes none larger than 32 KiB.
pub const NETLINK_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are asked for as a netlink socket's receive buffer; the kernel gives less where the host's limit says so.
pub const NETLINK_RECEIVE_BUFFER_BYTES: usize = 512 * 1024;
/// Entries of one listing: links, routes, connections.
pub const NETLINK_DUMP_ENTRIES_MAX: usize = 1_048_576;
/// A listing that changed while the kernel wrote it is asked for this often in all.
pub const NETLINK_DUMP_TRIES_MAX: u32 = 4;
/// The kernel answers a request within this, or the request is given up.
pub const NETLINK_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(NETLINK_SEND_BYTES_MAX <= NETLINK_TRANSACTION_BYTES_MAX);
const _: () = assert!(CLIENT_BUFFERS.is_power_of_two() && INSTANCE_BUFFERS.is_power_of_two());
const _: () = assert!(RING_COMPLETIONS >= 2 * RING_ENTRIES);
const _: () = assert!(METHOD_BYTES_MAX + TARGET_BYTES_MAX + 2 * EMPTY_LINES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(CHUNK_LINE_BYTES_MAX <= CHUNK_OVERHEAD_BYTES_MAX);
const _: () = assert!(CHUNK_LINE_BYTES_MAX <= TRAILERS_BYTES_MAX);
const _: () = assert!(CONTROL_BODY_BYTES_MAX > SYNC_REQUEST_BYTES_MAX);
const _: () = assert!(HELD_BYTES_PER_SHARD_MAX > 2 * CONTROL_BODY_BYTES_MAX);
const _: () = assert!(RESPONSE_PART_BYTES_MAX <= RESPONSE_CREDIT_BYTES as usize);
const _: () = assert!(MEMORY_MB_MIN <= MEMORY_MB_MAX);
// JSON takes at most six bytes for one of a text.
const _: () = assert!(
    LOG_DISK_PER_FUNCTION_BYTES_MIN / LOG_SEGMENTS_PER_FUNCTION >= LOG_RING_BYTES_MAX as u64 * 6 + 4096
);
const _: () = assert!(LOG_DISK_PER_FUNCTION_BYTES_MIN <= LOG_DISK_PER_FUNCTION_BYTES_DEFAULT);
const _: () = assert!(LOG_DISK_PER_FUNCTION_BYTES_DEFAULT <= LOG_DISK_BYTES_DEFAULT);
const _: () = assert!(CODE_ROOM_POLL.as_millis() <= CODE_ROOM_RETRY.as_millis());
const _: () = assert!(CODE_DISK_BYTES_DEFAULT > UNZIPPED_BYTES_MAX + ZIP_BYTES_MAX as u64);
// A function key is a 32-digit hash, a name and a version with colons between; shards keep it in 256 bytes.
const _: () = assert!(32 + 1 + FUNCTION_NAME_BYTES_MAX + 1 + VERSION_DIGITS_MAX <= 256);
const _: () = assert!(LIST_PAGE_DEFAULT <= LIST_PAGE_MAX);
const _: () = assert!(CONTROL_HELD_BYTES_MAX > 2 * CONTROL_BODY_BYTES_MAX);
const _: () = assert!(FRAME_EVENT_BYTES_MAX <= INSTANCE_SEND_BYTES_MAX);
const _: () = assert!(FUNCLET_CHANNELS_MAX <= 1024 && HELLO_META_BYTES_MAX <= FRAME_META_BYTES_MAX);
// What has competed for half of its time and is not ready is broken, not starved.
const _: () = assert!(BOOT_ASIDE_MAX.as_millis() * 20 <= BOOT_TIMEOUT.as_millis());
const _: () = assert!(POOL_REFILL_QUIET.as_millis() < BOOT_ASIDE_MAX.as_millis());
const _: () = assert!(BOOT_BACKOFF_MIN.as_millis() <= BOOT_BACKOFF_MAX.as_millis());
const _: () = assert!(BOOT_PIDS <= PIDS_PER_CONTAINER_MAX && FUNCTION_FDS_DEFAULT <= FUNCTION_FDS_MAX);
