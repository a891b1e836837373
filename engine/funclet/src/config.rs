//! What a funclet is started with.
//!
//! Owns: the settings' shape and their bounds. Must not know: where they come from; the supervisor passes them as JSON.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use faaster_function::RuntimeSpec;
use faaster_limits::{
    BOOT_TIMEOUT, FUNCLETS_MAX, POOL_FALL_AFTER, POOL_MAX_DEFAULT, RUNTIMES_MAX, SLOTS_MAX,
};
use serde::{Deserialize, Serialize};

use crate::network::NetworkConfig;

/// User ids of one container.
pub const UIDS_PER_SLOT: u32 = 65_536;
/// Core numbers that a CPU set holds (CPU_SETSIZE, sched_setaffinity(2)).
const CORES_MAX: usize = 1024;
/// Where containers' user ids begin unless configured: far above people's, below 2^31 for most node sizes.
pub const UID_BASE_DEFAULT: u32 = 0x4000_0000;

/// Names a run of the engine: eight lower-case hex digits. Everything that a run leaves on the machine carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// The text is not eight lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance id {0:?} is not eight lower-case hex digits")]
pub struct InstanceIdError(String);

impl InstanceId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InstanceIdError;
    fn try_from(text: String) -> Result<Self, InstanceIdError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 8 && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err(InstanceIdError(text))
        }
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Settings of one funclet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FuncletConfig {
    pub instance: InstanceId,
    /// Which of the node's funclets this is, from 0.
    pub index: u16,
    /// How many there are.
    pub count: u16,
    /// Directory of this run; must exist. The funclet mounts over it in a namespace of its own and leaves nothing.
    pub run_dir: PathBuf,
    /// Directory with one `<sha256>/` tree for each code package.
    pub code_dir: PathBuf,
    /// Owner that a code tree must have.
    pub engine_uid: u32,
    /// The faaster-init program; others must be allowed to read and execute it.
    pub init_path: PathBuf,
    pub runtimes: Vec<RuntimeSpec>,
    /// This funclet's part of the node's memory, bytes.
    pub memory_bytes: u64,
    /// Memory that may be promised is [`Self::memory_bytes`] times this.
    pub memory_overcommit: f64,
    /// A container that is made must be ready this long after its birth.
    #[serde(default = "boot_timeout_default")]
    pub boot_timeout: Duration,
    /// Containers at once, prepared ones included.
    pub slots_max: u32,
    /// First user id of all funclets' containers.
    #[serde(default = "uid_base_default")]
    pub uid_base: u32,
    /// Cores that an instance may be kept on.
    pub shard_cores: Vec<u16>,
    /// Cores that an instance may use when it is placed freely.
    pub all_cores: Vec<u16>,
    /// Prepared containers of each runtime, instead of what the runtimes say.
    #[serde(default)]
    pub pool: Option<u32>,
    /// What demand may raise a runtime's pool to; a pool that is configured larger stays so.
    #[serde(default = "pool_max_default")]
    pub pool_max: u32,
    /// A quarter of what demand raised a pool by is given up so long after the latest peak.
    #[serde(default = "pool_fall_after_default")]
    pub pool_fall_after: Duration,
    /// `None`: containers have their loopback alone.
    #[serde(default)]
    pub network: Option<NetworkConfig>,
}

fn boot_timeout_default() -> Duration {
    BOOT_TIMEOUT
}

fn pool_max_default() -> u32 {
    POOL_MAX_DEFAULT
}

fn pool_fall_after_default() -> Duration {
    POOL_FALL_AFTER
}

fn uid_base_default() -> u32 {
    UID_BASE_DEFAULT
}

/// Every problem of a configuration, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the funclet's configuration is wrong: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl FuncletConfig {
    /// Checks everything that can be checked without touching the machine.
    ///
    /// # Errors
    /// All problems at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, sentence: String| {
            if !holds {
                problems.push(sentence);
            }
        };
        require(
            self.count >= 1 && usize::from(self.count) <= FUNCLETS_MAX,
            format!("count is {}, must be 1 to {FUNCLETS_MAX}", self.count),
        );
        require(self.index < self.count, format!("index {} is not below count {}", self.index, self.count));
        require(
            self.slots_max >= 1 && self.slots_max as usize <= SLOTS_MAX,
            format!("slots_max is {}, must be 1 to {SLOTS_MAX}", self.slots_max),
        );
        require(self.runtimes.len() <= RUNTIMES_MAX, format!("more than {RUNTIMES_MAX} runtimes"));
        require(self.memory_bytes > 0, "memory_bytes is 0".to_owned());
        require(
            self.memory_overcommit.is_finite() && (0.1..=1000.0).contains(&self.memory_overcommit),
            format!("memory_overcommit is {}, must be 0.1 to 1000", self.memory_overcommit),
        );
        require(!self.boot_timeout.is_zero(), "boot_timeout is 0".to_owned());
        require(!self.pool_fall_after.is_zero(), "pool_fall_after is 0".to_owned());
        require(!self.all_cores.is_empty(), "all_cores is empty".to_owned());
        let known = |core: &u16| usize::from(*core) < CORES_MAX;
        require(self.all_cores.iter().all(known), format!("a core number is not below {CORES_MAX}"));
        require(
            self.uid_of_slot(self.slots_max).is_some() && self.uid_of_fork_server(RUNTIMES_MAX).is_some(),
            format!("uid_base {} leaves no room", self.uid_base),
        );
        for (name, path) in
            [("run_dir", &self.run_dir), ("code_dir", &self.code_dir), ("init_path", &self.init_path)]
        {
            require(path.is_absolute(), format!("{name} {} is not absolute", path.display()));
        }
        for runtime in &self.runtimes {
            let absolute = runtime.argv.first().is_some_and(|program| program.starts_with('/'));
            require(absolute, format!("runtime {} has no absolute path for its program", runtime.name));
            require(
                runtime.folder.is_absolute(),
                format!("runtime {}'s folder is not absolute", runtime.name),
            );
            require(
                runtime.rootfs.as_ref().is_none_or(|path| path.is_absolute()),
                format!("runtime {}'s root file system is not absolute", runtime.name),
            );
            let server = &runtime.fork_server;
            require(
                server.first().is_none_or(|program| program.starts_with('/')),
                format!("runtime {} has no absolute path for its fork server", runtime.name),
            );
            let words = runtime.argv.iter().chain(server);
            let clean = words.chain(runtime.env.keys()).chain(runtime.env.values());
            require(
                !clean.into_iter().any(|text| text.contains('\0')),
                format!("runtime {} has a zero byte", runtime.name),
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }

    /// First of the [`UIDS_PER_SLOT`] user ids of a slot; `None` beyond what 32 bits hold.
    pub fn uid_of_slot(&self, slot: u32) -> Option<u32> {
        let before = u32::from(self.index).checked_mul(self.slots_max)?.checked_add(slot)?;
        self.uid_base.checked_add(before.checked_mul(UIDS_PER_SLOT)?)
    }

    /// The one user id of a runtime's fork server: beyond all containers' of all funclets.
    pub fn uid_of_fork_server(&self, runtime: usize) -> Option<u32> {
        let ranges = u32::from(self.count).checked_mul(self.slots_max)?;
        let server = usize::from(self.index).checked_mul(RUNTIMES_MAX)?.checked_add(runtime)?;
        let beyond = self.uid_base.checked_add(ranges.checked_mul(UIDS_PER_SLOT)?)?;
        beyond.checked_add(u32::try_from(server).ok()?)
    }

    /// Bytes that may be promised to functions.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a node's memory is far below 2^52 bytes, and the factor is positive"
    )]
    pub fn memory_allocatable_bytes(&self) -> u64 {
        (self.memory_bytes as f64 * self.memory_overcommit) as u64
    }

    /// Prepared containers to keep of a runtime.
    pub fn pool_of(&self, runtime: &RuntimeSpec) -> u32 {
        self.pool.unwrap_or(runtime.pool)
    }

    /// The containers' /etc/resolv.conf.
    pub fn resolv_conf(&self) -> &str {
        self.network.as_ref().map_or("# Containers have no network here.\n", |network| &network.resolv_conf)
    }

    /// Name of the cgroup that holds all of this funclet's.
    pub fn cgroup_name(&self) -> String {
        format!("{CGROUP_PREFIX}{}-{}", self.instance, self.index)
    }
}

/// How the name of every top cgroup of ours begins; then instance id, `-`, funclet index.
pub const CGROUP_PREFIX: &str = "faaster-";

/// The instance that a cgroup of this name belongs to; `None` for names that are not ours.
pub fn instance_of_cgroup(name: &str) -> Option<InstanceId> {
    let (id, index) = name.strip_prefix(CGROUP_PREFIX)?.split_once('-')?;
    if index.is_empty() || index.len() > 3 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    InstanceId::try_from(id.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> FuncletConfig {
        FuncletConfig {
            instance: InstanceId::try_from("0123abcd".to_owned()).unwrap(),
            index: 0,
            count: 1,
            run_dir: "/run/faaster/0123abcd".into(),
            code_dir: "/var/lib/faaster/code".into(),
            engine_uid: 61_000,
            init_path: "/usr/lib/faaster/init".into(),
            runtimes: vec![],
            memory_bytes: 1 << 30,
            memory_overcommit: 4.0,
            boot_timeout: BOOT_TIMEOUT,
            slots_max: 100,
            uid_base: UID_BASE_DEFAULT,
            shard_cores: vec![0],
            all_cores: vec![0, 1],
            pool: None,
            pool_max: POOL_MAX_DEFAULT,
            pool_fall_after: POOL_FALL_AFTER,
            network: None,
        }
    }

    #[test]
    fn a_good_configuration_passes_and_survives_json() {
        sample().validate().unwrap();
        let json = serde_json::to_string(&sample()).unwrap();
        let back: FuncletConfig = serde_json::from_str(&json).unwrap();
        back.validate().unwrap();
        assert_eq!(back.memory_allocatable_bytes(), 4 << 30);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let bad = FuncletConfig {
            index: 3,
            slots_max: 0,
            memory_overcommit: f64::NAN,
            boot_timeout: Duration::ZERO,
            all_cores: vec![],
            run_dir: "relative".into(),
            ..sample()
        };
        let ConfigError(problems) = bad.validate().unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn uid_ranges_of_funclets_do_not_meet() {
        let first = sample();
        let second = FuncletConfig { index: 1, count: 2, ..sample() };
        assert_eq!(first.uid_of_slot(100), second.uid_of_slot(0));
        assert_eq!(FuncletConfig { uid_base: u32::MAX - 5, ..sample() }.uid_of_slot(1), None);
    }

    #[test]
    fn only_our_cgroup_names_are_ours() {
        let ours = instance_of_cgroup(&sample().cgroup_name()).unwrap();
        assert_eq!(ours.as_str(), "0123abcd");
        for foreign in [
            "faaster-0123abcd",
            "faaster-0123ABCD-0",
            "faaster-0123abcd-x",
            "faaster-0123abcd-",
            "x-0123abcd-0",
            "faaster-0123abcd-0000",
        ] {
            assert_eq!(instance_of_cgroup(foreign), None, "{foreign}");
        }
    }
}
