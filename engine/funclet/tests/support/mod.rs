//! A funclet in a process of its own, and the engine's and the supervisor's side of it.
//!
//! Owns: the process, its directories, and the check that nothing of it is left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use faaster_funclet::config::{UID_BASE_DEFAULT, UIDS_PER_SLOT};
use faaster_funclet::network::{Net, NetworkConfig, NetworkRequest, V6, prepare};
use faaster_funclet::{FuncletConfig, InstanceId};
use faaster_function::runtime::RuntimeKind;
use faaster_function::{CallsAtOnce, RuntimeSpec};
use faaster_patience::patience;
use faaster_protocol::frame::{FrameType, HEADER_BYTES, Header, LoadMeta};
use faaster_protocol::funclet::{
    Claim, ClaimSource, CodeHash, Event, Generation, LinkMessage, MESSAGE_BYTES, NetworkMode, Placement,
    Request, RuntimeIndex, SlotId, Ticket,
};
use faaster_sys::fdpass;
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Nodes so far: each has users of its own, so that their processes can be told apart.
static NODES: AtomicU32 = AtomicU32::new(0);

/// How long anything may take before a test fails.
fn ample() -> Duration {
    patience(Duration::from_secs(30))
}
pub(crate) const ENGINE_UID: u32 = 61_234;

/// Whether system tests can run here; says why not.
pub(crate) fn can_run() -> bool {
    let can = rustix::process::geteuid().is_root();
    if !can {
        eprintln!("skipped: makes containers, so it runs as root only (tests/run does)");
    }
    can
}

/// Polls until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + ample();
    while !holds() {
        assert!(Instant::now() < until, "timed out: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        rustix::event::poll(&mut [], Some(&pause)).ok();
    }
}

/// The init program, built if it is not there; static, because containers begin where no library is.
fn init_path() -> PathBuf {
    if let Some(path) = std::env::var_os("FAASTER_INIT") {
        return path.into();
    }
    let me = std::env::current_exe().unwrap();
    let path = me.ancestors().nth(2).unwrap().join("faaster-init");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = "rustc -q -p faaster-init --bin faaster-init -- -C target-feature=+crt-static";
    let built = Command::new(cargo).args(words.split(' ')).stderr(Stdio::inherit()).status();
    assert!(built.unwrap().success() && path.exists(), "cannot build faaster-init");
    path
}

pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: FuncletConfig,
    lock: Option<File>,
    proc: Proc,
    process: Option<Child>,
    pub(crate) link: OwnedFd,
    death_write: Option<OwnedFd>,
    pub(crate) engine: Engine,
}

/// The engine's end of a channel.
pub(crate) struct Engine {
    pub(crate) socket: OwnedFd,
    next_ticket: u64,
    /// Events that came while another was waited for.
    pub(crate) aside: Vec<Event>,
}

pub(crate) struct Instance {
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) source: ClaimSource,
    pub(crate) pid: u32,
    pub(crate) claim_us: u32,
    pub(crate) attach_us: u32,
    pub(crate) channel: UnixStream,
    pub(crate) log: File,
    /// Peak of its memory.
    pub(crate) gauge: File,
    next_invocation: u64,
}

/// How a test differs from the usual.
pub(crate) struct Options {
    pub(crate) pool: u32,
    pub(crate) reclaim_frozen: bool,
    pub(crate) pool_max: u32,
    pub(crate) pool_fall_after: Duration,
    pub(crate) slots_max: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) boot_timeout: Duration,
    pub(crate) runtimes: Vec<RuntimeSpec>,
    /// What the funclet's process finds as its /proc.
    pub(crate) proc: Proc,
    /// `None`: containers have their loopback alone.
    pub(crate) network: Option<NetworkMode>,
    /// Of the containers' addresses; `None`: one that is free.
    pub(crate) subnet: Option<Net>,
    /// Where the funclet finds what it is to end at.
    pub(crate) fault_points: Option<PathBuf>,
}

/// See [`Options::proc`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proc {
    Whole,
    /// As Docker gives it to containers.
    Masked,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: 1,
            reclaim_frozen: true,
            pool_max: 0,
            pool_fall_after: faaster_limits::POOL_FALL_AFTER,
            slots_max: 8,
            memory_bytes: 4 << 30,
            boot_timeout: patience(faaster_limits::BOOT_TIMEOUT),
            runtimes: vec![python(), provided()],
            proc: Proc::Whole,
            network: None,
            subnet: None,
            fault_points: None,
        }
    }
}

pub(crate) fn python() -> RuntimeSpec {
    RuntimeSpec {
        name: "test-python".into(),
        names: vec![],
        kind: RuntimeKind::Pooled,
        version: String::new(),
        folder: PathBuf::new(),
        argv: ["/usr/bin/python3", "-I", "-S", "/var/runtime/boot.py"].map(str::to_owned).into(),
        fork_server: vec![],
        forks: None,
        env: BTreeMap::new(),
        pool: 1,
        default_handler: String::new(),
        default_code: None,
        calls: CallsAtOnce::ByQuota,
        rootfs: None,
    }
}

pub(crate) fn provided() -> RuntimeSpec {
    RuntimeSpec {
        name: "test-provided".into(),
        kind: RuntimeKind::Exec,
        argv: vec!["/var/task/bootstrap".to_owned()],
        ..python()
    }
}

fn socket_pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

impl Node {
    pub(crate) fn start(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("faaster-test-").tempdir().unwrap();
        let id = format!("{:08x}", std::process::id() ^ Instant::now().elapsed().subsec_nanos() ^ random());
        let run_dir = folder.path().join("run").join(&id);
        let runtime_folder = folder.path().join("runtime");
        for path in [&run_dir, &runtime_folder, &folder.path().join("code")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(runtime_folder.join("boot.py"), include_str!("boot.py")).unwrap();
        let lock = File::create(run_dir.join(faaster_funclet::sweep::LOCK_FILE)).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut runtimes = options.runtimes;
        runtimes.iter_mut().for_each(|runtime| runtime.folder = runtime_folder.clone());
        let cores = faaster_sys::affinity::allowed_cores().unwrap();
        let instance = InstanceId::try_from(id).unwrap();
        let (subnet, slots) = (options.subnet, options.slots_max);
        let network = options.network.map(|mode| prepare_network(mode, subnet, &instance, &run_dir, slots));
        let config = FuncletConfig {
            instance,
            index: 0,
            count: 1,
            run_dir,
            code_dir: folder.path().join("code"),
            engine_uid: ENGINE_UID,
            init_path: init_path(),
            runtimes,
            memory_bytes: options.memory_bytes,
            memory_overcommit: 1.0,
            boot_timeout: options.boot_timeout,
            slots_max: options.slots_max,
            uid_base: UID_BASE_DEFAULT + NODES.fetch_add(1, Ordering::Relaxed) * 64 * UIDS_PER_SLOT,
            shard_cores: cores.clone(),
            all_cores: cores,
            pool: Some(options.pool),
            reclaim_frozen: options.reclaim_frozen,
            pool_max: options.pool_max,
            pool_fall_after: options.pool_fall_after,
            network,
            fault_points: options.fault_points,
        };
        let (link, their_link) = socket_pair(SocketType::SEQPACKET);
        let (death_read, death_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let process = spawn_funclet(&config, folder.path(), &their_link, &death_read, options.proc);
        let (engine, theirs) = socket_pair(SocketType::SEQPACKET);
        let message = LinkMessage::Channels { peer: 0, count: 1 }.encode();
        fdpass::send_with_fds(&link, &message, &[theirs.as_fd()]).unwrap();
        let engine = Engine::new(engine);
        let (process, death_write, lock) = (Some(process), Some(death_write), Some(lock));
        let proc = options.proc;
        Self { folder, config, lock, proc, process, link, death_write, engine }
    }

    /// Puts files into a code package owned by the engine.
    pub(crate) fn code(&self, number: u8, files: &[(&str, &str)]) -> CodeHash {
        let hash = CodeHash([number; 32]);
        let folder = self.config.code_dir.join(hash.to_string());
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
            chmod(&folder.join(name), 0o755);
        }
        chmod(&folder, 0o755);
        std::os::unix::fs::chown(&folder, Some(ENGINE_UID), Some(ENGINE_UID)).unwrap();
        hash
    }

    /// One more engine, with one channel.
    pub(crate) fn another_engine(&self) -> Engine {
        let [engine] = self.another_engine_with();
        engine
    }

    /// One more engine; each of its channels as if it were one by itself.
    pub(crate) fn another_engine_with<const CHANNELS: usize>(&self) -> [Engine; CHANNELS] {
        let pairs = [(); CHANNELS].map(|()| socket_pair(SocketType::SEQPACKET));
        let theirs: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.as_fd()).collect();
        let count = u16::try_from(CHANNELS).unwrap();
        let message = LinkMessage::Channels { peer: 0, count }.encode();
        fdpass::send_with_fds(&self.link, &message, &theirs).unwrap();
        pairs.map(|(engine, _)| Engine::new(engine))
    }

    pub(crate) fn funclet_pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn kill_funclet(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// What the supervisor does after its funclet has died: starts it again, with new sockets.
    pub(crate) fn restart_funclet(&mut self) {
        let (link, their_link) = socket_pair(SocketType::SEQPACKET);
        let (death_read, death_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        self.process =
            Some(spawn_funclet(&self.config, self.folder.path(), &their_link, &death_read, self.proc));
        (self.link, self.death_write) = (link, Some(death_write));
        self.engine = self.another_engine();
    }

    /// What happens when the supervisor is killed: its ends close, its lock is free.
    pub(crate) fn lose_supervisor(&mut self) -> i32 {
        self.death_write = None;
        self.lock = None;
        self.wait_for_exit()
    }

    pub(crate) fn release_lock(&mut self) {
        self.lock = None;
    }

    /// Ends the funclet in order; gives its exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        fdpass::send_with_fds(&self.link, &LinkMessage::Stop { grace_ms: 10_000 }.encode(), &[]).unwrap();
        self.wait_for_exit()
    }

    /// As [`Self::stop`], also where it has ended by itself, which closes its link.
    pub(crate) fn stop_if_it_runs(&mut self) -> i32 {
        let stop = LinkMessage::Stop { grace_ms: 10_000 }.encode();
        fdpass::send_with_fds(&self.link, &stop, &[]).ok();
        self.wait_for_exit()
    }

    pub(crate) fn wait_for_exit(&mut self) -> i32 {
        let mut process = self.process.take().unwrap();
        let mut code = None;
        eventually("the funclet exits", || {
            code = process.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// cgroups that carry this run's id.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let name = self.config.cgroup_name();
        let mut found = Vec::new();
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap();
        for hierarchy in hierarchies.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            found.extend(Some(hierarchy.join(&name)).filter(|path| path.exists()));
        }
        found
    }

    /// Processes that run as one of the containers' users.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let range =
            self.config.uid_of_slot(0).unwrap()..self.config.uid_of_slot(self.config.slots_max).unwrap();
        let is_ours = |pid: &u32| uid_of(*pid).is_some_and(|uid| range.contains(&uid));
        all_processes().filter(is_ours).filter(|pid| !is_left_to_process_1(*pid)).collect()
    }

    /// Nothing may be left after the funclet is gone.
    pub(crate) fn assert_nothing_left(&self) {
        eventually("processes and cgroups are gone", || {
            self.processes().is_empty() && self.cgroups().is_empty()
        });
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.folder.path().to_str().unwrap()), "{mounts}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
        self.lock = None;
        // A failed test leaves cgroups behind; the sweep is what removes them.
        let config = faaster_funclet::SweepConfig { run_root: self.run_root() };
        faaster_funclet::sweep(&config).ok();
    }
}

/// What the supervisor does; undone by the sweep.
fn prepare_network(
    mode: NetworkMode,
    subnet: Option<Net>,
    instance: &InstanceId,
    run_dir: &Path,
    slots: u32,
) -> NetworkConfig {
    let request = NetworkRequest {
        mode,
        subnet,
        mtu_bytes: None,
        dns: vec![],
        v6: V6::Auto,
        slots,
        closed_ports: vec![],
    };
    prepare(&request, instance, run_dir).unwrap().config
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u32::from_ne_bytes(bytes)
}

fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn all_processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A dead orphan: reaping it is up to process 1, which is cargo here and does not.
fn is_left_to_process_1(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("\nState:\tZ") && status.contains("\nPPid:\t1\n")
}

pub(crate) fn uid_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// Runs the test `funclet_process` of this very binary in a process of its own.
fn spawn_funclet(
    config: &FuncletConfig,
    folder: &Path,
    link: &OwnedFd,
    death: &OwnedFd,
    proc: Proc,
) -> Child {
    let file = folder.join("config.json");
    std::fs::write(&file, serde_json::to_string(config).unwrap()).unwrap();
    for fd in [link, death] {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).unwrap();
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["funclet_process", "--exact", "--ignored", "--nocapture", "--quiet"])
        .env("FUNCLET_CONFIG", file)
        .env("FUNCLET_LINK", link.as_raw_fd().to_string())
        .env("FUNCLET_DEATH", death.as_raw_fd().to_string())
        .env("FUNCLET_PROC", format!("{proc:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Engine {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        let timeout = Some(ample());
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)
            .unwrap();
        Self { socket, next_ticket: 0, aside: Vec::new() }
    }

    pub(crate) fn send(&self, request: &Request) {
        fdpass::send_with_fds(&self.socket, &request.encode(), &[]).unwrap();
    }

    fn receive(&mut self) -> (Event, Vec<OwnedFd>) {
        let mut bytes = [0; MESSAGE_BYTES];
        let received = match fdpass::recv_with_fds(&self.socket, &mut bytes) {
            Err(Errno::AGAIN) => panic!("no event in {:?}", ample()),
            result => result.unwrap(),
        };
        assert_ne!(received.bytes, 0, "the funclet closed the channel");
        (Event::decode(&bytes[..received.bytes]).unwrap(), received.fds)
    }

    /// Takes the next event, which carries no descriptor, and keeps it.
    pub(crate) fn put_aside(&mut self) {
        let (event, fds) = self.receive();
        assert!(fds.is_empty(), "unexpected descriptors with {event:?}");
        self.aside.push(event);
    }

    /// The next event that matches; others are kept.
    pub(crate) fn expect<T>(&mut self, matches: impl Fn(&Event) -> Option<T>) -> T {
        if let Some(at) = self.aside.iter().position(|event| matches(event).is_some()) {
            return matches(&self.aside.remove(at)).unwrap();
        }
        loop {
            let (event, fds) = self.receive();
            assert!(fds.is_empty(), "unexpected descriptors with {event:?}");
            match matches(&event) {
                Some(value) => return value,
                None => self.aside.push(event),
            }
        }
    }

    pub(crate) fn claim_request(&mut self, runtime: u16, code: CodeHash) -> Claim {
        self.next_ticket += 1;
        Claim {
            ticket: Ticket(self.next_ticket),
            runtime: RuntimeIndex(runtime),
            placement: Placement::Free,
            code,
            account_tag: 1,
            function_tag: 2,
            memory_mb: 256,
            pids_max: 32,
            tmp_mb: 512,
            deadline_ns: now_ns() + u64::try_from(patience(Duration::from_secs(20)).as_nanos()).unwrap(),
            network: None,
            layers: None,
        }
    }

    pub(crate) fn claim(&mut self, runtime: u16, code: CodeHash) -> Instance {
        let claim = self.claim_request(runtime, code);
        self.claim_with(claim)
    }

    pub(crate) fn claim_with(&mut self, claim: Claim) -> Instance {
        self.send(&Request::Claim(claim));
        self.expect_claimed(claim.ticket)
    }

    pub(crate) fn expect_claimed(&mut self, wanted: Ticket) -> Instance {
        let (instance, ticket) = self.expect_any_claimed();
        assert_eq!(ticket, wanted);
        instance
    }

    /// The next claim that is served, whichever that is.
    pub(crate) fn expect_any_claimed(&mut self) -> (Instance, Ticket) {
        loop {
            let (event, fds) = self.receive();
            let Event::Claimed { ticket, slot, generation, pid, source, claim_us, attach_us } = event else {
                assert!(!matches!(event, Event::Refused { .. }), "{event:?}");
                self.aside.push(event);
                continue;
            };
            let [channel, log, gauge]: [OwnedFd; 3] = fds.try_into().unwrap();
            let channel = UnixStream::from(channel);
            channel.set_read_timeout(Some(ample())).unwrap();
            let (log, gauge, next_invocation) = (File::from(log), File::from(gauge), 0);
            let instance = Instance {
                slot,
                generation,
                source,
                pid,
                claim_us,
                attach_us,
                channel,
                log,
                gauge,
                next_invocation,
            };
            return (instance, ticket);
        }
    }

    pub(crate) fn kill(&self, instance: &Instance) {
        self.send(&Request::Kill { slot: instance.slot, generation: instance.generation });
    }
}

pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: FrameType,
    pub(crate) body: Vec<u8>,
}

impl Instance {
    pub(crate) fn load(&mut self) -> Frame {
        let env = BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]);
        let load = LoadMeta {
            function_name: "hello",
            function_version: "1",
            brn: "brn:cloud:faas",
            handler: "h",
            memory_mb: 256,
            timeout_ms: 3000,
            concurrency: 0,
            user_id: "u",
            env: &env,
        };
        self.channel.write_all(&load.encode_frame()).unwrap();
        self.receive().unwrap()
    }

    pub(crate) fn invoke(&mut self, body: &str) {
        self.next_invocation += 1;
        let mut header = Header::new(FrameType::Invoke, self.next_invocation);
        header.body_bytes = u32::try_from(body.len()).unwrap();
        self.channel.write_all(&[&header.encode()[..], body.as_bytes()].concat()).unwrap();
    }

    /// The next frame; `None` at the end.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; HEADER_BYTES];
        match self.channel.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no frame: {error}"),
        }
        let header = Header::decode(&head).unwrap().unwrap();
        let mut payload = vec![0; header.payload_bytes()];
        self.channel.read_exact(&mut payload).unwrap();
        let body = payload.split_off(header.meta_bytes as usize);
        Some(Frame { kind: header.kind, body })
    }

    /// Runs Python code that sets `result`.
    pub(crate) fn run(&mut self, code: &str) -> serde_json::Value {
        self.invoke(code);
        let frame = self.receive().expect("the runtime is gone");
        let value: serde_json::Value = serde_json::from_slice(&frame.body).unwrap();
        assert_eq!(frame.kind, FrameType::Response, "{value}");
        value
    }
}
