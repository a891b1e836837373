//! The configuration of an engine, validated: every value is good, and all that was wrong is reported at once.
//!
//! Owns: meaning and bounds of settings. Must not know: processes, sockets; it binds and creates nothing.

mod machine;
mod raw;
mod rootfs;
mod settings;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use faaster_funclet::network::{Net, V6};
use faaster_function::AccountId;
use faaster_limits as limits;
use faaster_protocol::funclet::NetworkMode;
use serde::{Deserialize, Serialize};

pub(crate) use machine::Machine;
pub(crate) use raw::{Origin, Problem, Raw, SettingFlags};
pub(crate) use rootfs::{Root, Rootfs};

/// Where instances of functions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placement {
    HomeCore,
    Free,
}

/// What containers reach, and by which addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Of functions that name none; `None`: nobody has a network.
    pub mode: Option<NetworkMode>,
    /// `None`: one that is free.
    pub subnet: Option<Net>,
    pub v6: V6,
    /// `None`: as the host's.
    pub mtu_bytes: Option<u32>,
    /// None: the host's.
    pub dns: Vec<IpAddr>,
}

/// How much is said on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// A whole, valid configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub listen: SocketAddr,
    pub registry_listen: SocketAddr,
    pub data: PathBuf,
    pub run: PathBuf,
    pub shards: u16,
    pub funclets: u16,
    pub default_account: AccountId,
    pub simple_auth: bool,
    pub http_trigger: bool,
    pub max_runtime_idle: Duration,
    pub boot_timeout: Duration,
    /// `None`: instances are never frozen.
    pub freeze_after: Option<Duration>,
    pub reclaim_frozen: bool,
    /// `None`: idle runtimes are not asked whether they answer.
    pub health_interval: Option<Duration>,
    pub health_timeout: Duration,
    pub memory_bytes: u64,
    pub memory_overcommit: f64,
    pub placement: Placement,
    pub runtimes: Vec<PathBuf>,
    pub pool: BTreeMap<String, u32>,
    pub pool_max: u32,
    pub pool_fall_after: Duration,
    /// `None`: the program that was shipped with this one.
    pub init: Option<PathBuf>,
    pub rootfs: Rootfs,
    pub network: Network,
    pub slots_max: u32,
    pub connections_max: usize,
    pub engine_uid: u32,
    pub engine_gid: u32,
    pub grace: Duration,
    pub log_level: LogLevel,
    /// `None`: nobody wants funclets to end at named places.
    pub fault_points: Option<PathBuf>,
    /// 0: what functions print is not kept on disk.
    pub log_disk_bytes: u64,
    pub log_disk_per_function_bytes: u64,
    pub code_disk_bytes: u64,
    /// `None`: unpacked code stays for as long as there is room for it.
    pub code_idle: Option<Duration>,
    /// Cores that shards and instances may use.
    pub cores: Vec<u16>,
}

impl Config {
    /// Core that a shard is kept on; with more shards than cores they share.
    pub(crate) fn core_of(&self, shard: usize) -> u16 {
        self.cores[shard % self.cores.len()]
    }
}

/// A setting as it is in force, for `faaster config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problems[..] {
            [problem] => write!(f, "the configuration has a problem: {}: {}", problem.origin, problem.text),
            problems => {
                write!(f, "the configuration has {} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.origin, problem.text))
            }
        }
    }
}

/// Reads values one by one, keeps what is wrong and goes on.
struct Reader<'a> {
    raw: &'a Raw,
    problems: Vec<Problem>,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    /// The values of a setting through `parse`; where they are bad, the default's, so that reading goes on.
    fn many<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&[String]) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let given = &self.raw.given[name];
        let value = parse(&given.values).unwrap_or_else(|text| {
            let text = format!("`{}` {text}", given.values.join(","));
            self.problems.push(Problem { origin: given.origin.clone(), text });
            let default =
                settings::find(name).expect("settings are read by their names in the table").default;
            let default: &[String] = if default.is_empty() { &[] } else { &[default.to_owned()] };
            parse(default).expect("defaults are good, which a test asserts")
        });
        self.effective.push(Effective { name, value: show(&value), origin: given.origin.clone() });
        value
    }

    fn one<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> T {
        self.many(name, |values| parse(values.first().map_or("", String::as_str)), show)
    }

    fn number(&mut self, name: &'static str, least: u64, most: u64) -> u64 {
        self.one(name, |text| value::number(text, least, most), u64::to_string)
    }

    fn switch(&mut self, name: &'static str) -> bool {
        self.one(name, value::switch, bool::to_string)
    }

    fn duration(&mut self, name: &'static str, most: Duration) -> Duration {
        self.one(name, |text| value::duration(text, most), |duration| value::show_duration(*duration))
    }

    fn directory(&mut self, name: &'static str) -> PathBuf {
        self.one(name, absolute, |path| path.display().to_string())
    }

    fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> T {
        let parse = |text: &str| {
            let found = choices.iter().find(|(word, _)| *word == text).copied();
            found.ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                format!("must be one of {}", words.join(", "))
            })
        };
        self.one(name, parse, |(word, _)| (*word).to_owned()).1
    }

    fn conflict(&mut self, name: &'static str, text: &str) {
        self.problems.push(Problem { origin: self.raw.given[name].origin.clone(), text: text.to_owned() });
    }
}

fn or_never(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" { Ok(None) } else { value::duration(text, DURATION_MAX).map(Some) }
}

/// Longer than other times: code may rest for months.
fn code_idle(text: &str) -> Result<Option<Duration>, String> {
    let parsed =
        if text == "never" { return Ok(None) } else { value::duration(text, limits::CODE_IDLE_MAX)? };
    if parsed.is_zero() { Err("must be longer than 0s, or never".to_owned()) } else { Ok(Some(parsed)) }
}

/// Where every moment makes no sense, 0 means never, too.
fn or_never_zero(text: &str) -> Result<Option<Duration>, String> {
    or_never(text).map(|after| after.filter(|after| !after.is_zero()))
}

#[expect(clippy::ref_option, reason = "settings are shown by reference")]
fn show_or_never(after: &Option<Duration>) -> String {
    after.map_or_else(|| "never".to_owned(), value::show_duration)
}

/// The longest that any timer of the configuration may be.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Makes sense of what was typed.
///
/// # Errors
/// All the problems that there are.
pub(crate) fn validate(raw: &Raw, machine: &Machine) -> Result<(Config, Vec<Effective>), ConfigError> {
    let mut r = Reader { raw, problems: raw.problems.clone(), effective: Vec::new() };
    let shards_max = limits::SHARDS_MAX as u64;
    let auto_shards = machine.parallelism.min(limits::SHARDS_MAX) as u64;
    let listen = r.one("listen", address, SocketAddr::to_string);
    let registry_listen = r.one("registry_listen", address, SocketAddr::to_string);
    let data = r.directory("data");
    let run = r.directory("run");
    let config = Config {
        listen,
        registry_listen,
        data,
        run,
        shards: narrow(r.one(
            "shards",
            |text| if text == "auto" { Ok(auto_shards) } else { value::number(text, 1, shards_max) },
            u64::to_string,
        )),
        funclets: narrow(r.number("funclets", 1, limits::FUNCLETS_MAX as u64)),
        default_account: r.one("default_account", account, |account| account.as_str().to_owned()),
        simple_auth: r.switch("simple_auth"),
        http_trigger: r.switch("http_trigger"),
        max_runtime_idle: r.duration("max_runtime_idle", DURATION_MAX),
        boot_timeout: r.one("boot_timeout", more_than_nothing, |duration| value::show_duration(*duration)),
        freeze_after: r.one("freeze_after", or_never, show_or_never),
        reclaim_frozen: r.switch("reclaim_frozen"),
        health_interval: r.one("health_interval", or_never_zero, show_or_never),
        health_timeout: r.one("health_timeout", more_than_nothing, |after| value::show_duration(*after)),
        memory_bytes: r.one("memory", |text| memory(text, machine), |bytes| value::show_size(*bytes)),
        memory_overcommit: r.one("memory_overcommit", value::factor, f64::to_string),
        placement: r.choice("placement", &[("home-core", Placement::HomeCore), ("free", Placement::Free)]),
        runtimes: r.many("runtimes", runtime_folders, |folders| {
            folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(",")
        }),
        pool: r.many("pool", pool, |pool| {
            pool.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(",")
        }),
        pool_max: narrow(r.number("pool_max", 0, limits::SLOTS_MAX as u64)),
        pool_fall_after: r.one("pool_fall_after", more_than_nothing, |after| value::show_duration(*after)),
        init: r
            .one("init", init, |path| path.as_ref().map_or("auto".into(), |path| path.display().to_string())),
        rootfs: r.many("rootfs", Rootfs::parse, Rootfs::to_string),
        network: network(&mut r),
        slots_max: narrow(r.number("slots_max", 1, limits::SLOTS_MAX as u64)),
        connections_max: narrow(r.number("connections_max", 1, limits::CONNECTIONS_PER_SHARD_MAX as u64)),
        engine_uid: narrow(r.number("engine_uid", 1, u64::from(u32::MAX - 1))),
        engine_gid: narrow(r.number("engine_gid", 1, u64::from(u32::MAX - 1))),
        grace: r.duration("grace", DURATION_MAX),
        log_level: r.choice(
            "log_level",
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
            ],
        ),
        fault_points: r.one("fault_points", fault_points, |path| {
            path.as_ref().map_or("none".to_owned(), |path| path.display().to_string())
        }),
        log_disk_bytes: r.one("log_disk", |text| disk(text, 0), |bytes| value::show_size(*bytes)),
        log_disk_per_function_bytes: r.one(
            "log_disk_per_function",
            |text| disk(text, limits::LOG_DISK_PER_FUNCTION_BYTES_MIN),
            |bytes| value::show_size(*bytes),
        ),
        code_disk_bytes: r.one(
            "code_disk",
            |text| disk(text, limits::UNZIPPED_BYTES_MAX),
            |bytes| value::show_size(*bytes),
        ),
        code_idle: r.one("code_idle", code_idle, show_or_never),
        cores: machine.cores.clone(),
    };
    relations(&mut r, &config);
    if r.problems.is_empty() { Ok((config, r.effective)) } else { Err(ConfigError { problems: r.problems }) }
}

fn network(r: &mut Reader<'_>) -> Network {
    let modes = [
        ("off", None),
        ("none", Some(NetworkMode::None)),
        ("egress", Some(NetworkMode::Egress)),
        ("full", Some(NetworkMode::Full)),
    ];
    Network {
        mode: r.choice("network", &modes),
        subnet: r.one("network_subnet", subnet, |net| net.map_or("auto".to_owned(), |net| net.to_string())),
        v6: r.choice("network_ipv6", &[("auto", V6::Auto), ("off", V6::Off)]),
        mtu_bytes: r.one("network_mtu", mtu, |mtu| mtu.map_or("auto".to_owned(), |mtu| mtu.to_string())),
        dns: r.many("network_dns", dns, |dns| {
            dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }),
    }
}

/// What settings demand of each other.
fn relations(r: &mut Reader<'_>, config: &Config) {
    if config.listen == config.registry_listen && config.listen.port() != 0 {
        r.conflict("registry_listen", "must differ from the controller's address (listen)");
    }
    if u64::from(config.slots_max) < u64::from(config.funclets) {
        r.conflict("slots_max", "must not be less than funclets: each funclet needs a slot");
    }
    if config.data.starts_with(&config.run) {
        r.conflict("data", "must not be inside the run directory, which is emptied at every stop");
    }
}

fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).ok().expect("the bounds that were checked fit the type")
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8001 or [::1]:8001".to_owned())
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs {
        Err("must be an absolute path without `..`".to_owned())
    } else if path == Path::new("/") {
        Err("must not be the root directory".to_owned())
    } else {
        Ok(path.to_owned())
    }
}

fn account(text: &str) -> Result<AccountId, String> {
    AccountId::parse(text).map_err(|_| {
        format!("must be 1 to {} printable characters without spaces", limits::ACCOUNT_ID_BYTES_MAX)
    })
}

fn more_than_nothing(text: &str) -> Result<Duration, String> {
    match value::duration(text, DURATION_MAX)? {
        Duration::ZERO => Err("must be more than nothing".to_owned()),
        duration => Ok(duration),
    }
}

fn memory(text: &str, machine: &Machine) -> Result<u64, String> {
    let bytes = value::size(text, machine.memory_bytes)?;
    let least = u64::from(limits::MEMORY_MB_MIN) << 20;
    if bytes < least {
        Err(format!("is less than the smallest function needs, {}", value::show_size(least)))
    } else if bytes > machine.memory_bytes {
        Err(format!("is more than there is, {}", value::show_size(machine.memory_bytes)))
    } else {
        Ok(bytes)
    }
}

fn disk(text: &str, least: u64) -> Result<u64, String> {
    if text.ends_with('%') {
        return Err("must be a size such as 512MiB or 2GiB".to_owned());
    }
    let bytes = value::size(text, 0)?;
    if bytes < least {
        return Err(format!("must be at least {}", value::show_size(least)));
    }
    Ok(bytes)
}

fn runtime_folders(values: &[String]) -> Result<Vec<PathBuf>, String> {
    let check = |value: &String| {
        let path = PathBuf::from(value);
        if path.is_dir() { Ok(path) } else { Err(format!("must name folders; `{value}` is none")) }
    };
    values.iter().map(check).collect()
}

fn pool(values: &[String]) -> Result<BTreeMap<String, u32>, String> {
    let pair = |value: &String| {
        let (name, count) = value.split_once('=').ok_or("must be pairs such as python3=4")?;
        let count = value::number(count, 0, limits::SLOTS_MAX as u64)?;
        Ok((name.to_owned(), narrow(count)))
    };
    values.iter().map(pair).collect()
}

fn subnet(text: &str) -> Result<Option<Net>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let net: Net = text.parse().map_err(|_| "must be auto or a subnet such as 10.213.0.0/16".to_owned())?;
    if net.0.first().is_ipv6() {
        Err("must be IPv4; IPv6 addresses of containers are made by themselves".to_owned())
    } else if !(8..=28).contains(&net.0.prefix_bits()) {
        Err("must have 8 to 28 bits of prefix".to_owned())
    } else {
        Ok(Some(net))
    }
}

/// The least is what IPv6 needs (RFC 8200), the most what an IP packet can have.
fn mtu(text: &str) -> Result<Option<u32>, String> {
    if text == "auto" { Ok(None) } else { value::number(text, 1280, 65_535).map(|bytes| Some(narrow(bytes))) }
}

fn dns(values: &[String]) -> Result<Vec<IpAddr>, String> {
    let check = |value: &String| {
        let address: IpAddr =
            value.parse().map_err(|_| format!("must be IP addresses; `{value}` is none"))?;
        if address.is_loopback() || address.is_unspecified() {
            Err(format!("must be reachable from containers; {address} is this host's own"))
        } else {
            Ok(address)
        }
    };
    values.iter().map(check).collect()
}

fn fault_points(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() { Ok(None) } else { absolute(text).map(Some) }
}

fn init(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "auto" => Ok(None),
        path if Path::new(path).is_file() => Ok(Some(PathBuf::from(path))),
        _ => Err("must be auto or a file that exists".to_owned()),
    }
}

#[cfg(test)]
mod tests;
