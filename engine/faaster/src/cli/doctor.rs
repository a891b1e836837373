//! `faaster doctor`: the whole picture of this machine, each lack with what to do about it.
//!
//! Owns: the list of examinations. Must not know: how the engine reacts to a lack (it has its own checks, which are
//! the same functions).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::system::uname;
use serde_json::{Value, json};

use super::error::CliError;
use super::output::{Column, Format, print, print_json, table};
use super::settings::{self, SettingsOnly};
use crate::config::value::show_size;
use crate::config::{Config, Machine};
use crate::exit::Outcome;
use crate::init_program::{self, Place};
use crate::runtimes::roots::Roots;
use crate::runtimes::{self, embedded};
use crate::supervisor::{self, holder, requirements};

/// Locked memory that rings and buffers of one shard are charged, bytes (measured on 6.18: 47 rings in 8 MiB).
const MEMLOCK_PER_SHARD_BYTES: u64 = 256 * 1024;
/// Descriptors that an engine needs besides those of its clients.
const NOFILE_LEAST: u64 = 4096;

/// Processes and threads of a host that has some hundred instances.
const PROCESSES_LEAST: u64 = 16_384;
/// Tracked connections of a host whose functions call others.
const TRACKED_LEAST: u64 = 16_384;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// The engine runs, with less.
    Weak,
    /// The engine does not start.
    Missing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Weak => "weak",
            Self::Missing => "MISSING",
        }
    }
}

/// One examination.
#[derive(Debug)]
struct Finding {
    what: String,
    verdict: Verdict,
    text: String,
}

fn good(what: impl ToString, text: impl ToString) -> Finding {
    Finding { what: what.to_string(), verdict: Verdict::Good, text: text.to_string() }
}

fn weak(what: impl ToString, text: impl ToString) -> Finding {
    Finding { what: what.to_string(), verdict: Verdict::Weak, text: text.to_string() }
}

fn missing(what: impl ToString, text: impl ToString) -> Finding {
    Finding { what: what.to_string(), verdict: Verdict::Missing, text: text.to_string() }
}

/// # Errors
/// The configuration is no good, or nobody reads the output. A lack of the machine is no error but an outcome.
pub(crate) fn run(arguments: SettingsOnly, format: Format) -> Result<Outcome, CliError> {
    let (config, _) = settings::load(&arguments.settings)?;
    let findings = examine(&config);
    let lacks = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    match format {
        Format::Json => {
            let rows = findings
                .iter()
                .map(|f| json!({ "what": f.what, "verdict": f.verdict.word(), "text": f.text }));
            print_json(&Value::Array(rows.collect()))?;
        }
        Format::People => {
            let rows =
                findings.iter().map(|f| vec![f.verdict.word().to_owned(), f.what.clone(), f.text.clone()]);
            let columns = [Column::Text("VERDICT"), Column::Text("WHAT"), Column::Text("FOUND")];
            print(&table(&columns, rows.collect()))?;
            print(if lacks {
                "\nThe engine cannot start here: see MISSING.\n"
            } else {
                "\nThe engine can start here.\n"
            })?;
        }
    }
    Ok(if lacks { Outcome::Refused } else { Outcome::Success })
}

fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![kernel(), machine(config), user()];
    findings.extend(optional_capabilities());
    findings.extend([ring(), locked_memory(config), open_files()]);
    findings.extend(containers());
    findings.extend(network(config));
    findings.extend([frozen_memory(config), processes(), connections_tracked()].into_iter().flatten());
    findings.extend([data(config), budgets(config), init(config)]);
    findings.extend(languages(config));
    findings.extend([port("controller port", config.listen), port("registry port", config.registry_listen)]);
    findings
}

fn kernel() -> Finding {
    let name = uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    good("kernel", format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine())))
}

fn machine(config: &Config) -> Finding {
    let machine = Machine::read();
    good(
        "machine",
        format!(
            "{} cores for {} shards, {} of memory, {} of it for functions (promised {} times)",
            machine.cores.len(),
            config.shards,
            show_size(machine.memory_bytes),
            show_size(config.memory_bytes),
            config.memory_overcommit
        ),
    )
}

fn user() -> Finding {
    match requirements::root() {
        Ok(()) => good("user", "root"),
        Err(lack) => missing("user", lack),
    }
}

/// Capabilities that make the engine better; numbers of include/uapi/linux/capability.h.
fn optional_capabilities() -> Vec<Finding> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = requirements::effective(&status).unwrap_or(0);
    [
        (14, "CAP_IPC_LOCK is missing: rings live with the limit of locked memory"),
        (24, "CAP_SYS_RESOURCE is missing: limits of open files and locked memory cannot be raised"),
    ]
    .into_iter()
    .filter(|(number, _)| effective & (1 << number) == 0)
    .map(|(_, text)| weak("capabilities", text))
    .collect()
}

fn ring() -> Finding {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let sysctl = match disabled.trim() {
        "" => String::new(),
        value => format!("; kernel.io_uring_disabled is {value}"),
    };
    match faaster_sys::ring::probe() {
        Ok(features) => {
            let have = |name: &'static str, there: bool| if there { name } else { "" };
            let extras = [
                have("DEFER_TASKRUN", features.defer_taskrun),
                have("NO_SQARRAY", features.no_sqarray),
                have("direct descriptors", features.direct_descriptors),
            ];
            let extras: Vec<_> = extras.into_iter().filter(|name| !name.is_empty()).collect();
            good("io_uring", format!("multishot, buffer rings, {}{sysctl}", extras.join(", ")))
        }
        Err(refusal) => missing("io_uring", format!("{refusal}{sysctl}")),
    }
}

fn locked_memory(config: &Config) -> Finding {
    let needed = u64::from(config.shards) * MEMLOCK_PER_SHARD_BYTES;
    match getrlimit(Resource::Memlock).current {
        None => good("locked memory", "unlimited"),
        Some(limit) if limit >= needed => good("locked memory", format!("{} KiB", limit / 1024)),
        Some(limit) => weak(
            "locked memory",
            format!(
                "{} KiB, {} wanted: raise it with `ulimit -l` or LimitMEMLOCK=",
                limit / 1024,
                needed / 1024
            ),
        ),
    }
}

fn open_files() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        None => good("open files", "unlimited"),
        Some(limit) if limit >= NOFILE_LEAST => good("open files", format!("up to {limit}")),
        Some(limit) => weak(
            "open files",
            format!(
                "up to {limit}, so about as many connections: raise it with `ulimit -Hn` or LimitNOFILE="
            ),
        ),
    }
}

fn finding(check: faaster_funclet::Check) -> Finding {
    match check.outcome {
        faaster_funclet::Outcome::Ok(text) => good(check.name, text),
        faaster_funclet::Outcome::Degraded(text) => weak(check.name, text),
        faaster_funclet::Outcome::Missing(text) => missing(check.name, text),
    }
}

fn containers() -> Vec<Finding> {
    faaster_funclet::probe().into_iter().map(finding).collect()
}

/// Whether memory of frozen instances can go to swap.
fn frozen_memory(config: &Config) -> Option<Finding> {
    let what = "frozen memory";
    if !config.reclaim_frozen {
        return Some(good(what, "stays where it is, as configured"));
    }
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    Some(match (controllers.split_whitespace().any(|name| name == "memory"), swaps.lines().count() > 1) {
        (true, true) => good(what, "goes to swap"),
        (false, _) => {
            weak(what, "stays in memory: boot with cgroup v2 alone (`systemd.unified_cgroup_hierarchy=1`)")
        }
        (true, false) => weak(what, "stays in memory: this host has no swap; add some with `swapon`"),
    })
}

/// Processes that the kernel lets there be; each instance has two at least.
fn processes() -> Option<Finding> {
    let most = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min()?;
    let text = format!("up to {most} on this host");
    Some(if most >= PROCESSES_LEAST {
        good("processes", text)
    } else {
        weak("processes", format!("{text}: raise `sysctl kernel.pid_max kernel.threads-max`"))
    })
}

/// Connections that the kernel keeps track of: beyond them it drops packets of everybody.
fn connections_tracked() -> Option<Finding> {
    let most: u64 =
        std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok()?.trim().parse().ok()?;
    let text = format!("up to {most} tracked");
    Some(if most >= TRACKED_LEAST {
        good("connections", text)
    } else {
        weak("connections", format!("{text}: raise `sysctl net.netfilter.nf_conntrack_max`"))
    })
}

fn network(config: &Config) -> Vec<Finding> {
    if config.network.mode.is_none() {
        return vec![good("network", "off, as configured: functions have their loopback alone")];
    }
    let ports = [config.listen.port(), config.registry_listen.port()];
    let request = supervisor::network::request(config, &ports);
    faaster_funclet::network::examine::examine(&request).into_iter().map(finding).collect()
}

fn data(config: &Config) -> Finding {
    match requirements::data_directory(&config.data) {
        Ok(()) => good("data directory", config.data.display()),
        Err(lack) => missing("data directory", lack),
    }
}

/// Whether the disk has room for all that code and logs may take.
fn budgets(config: &Config) -> Finding {
    let what = "disk budgets";
    let wanted = config.code_disk_bytes.saturating_add(config.log_disk_bytes);
    let there = config.data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!(
                "{} for code and logs, {} free at {}",
                show_size(wanted),
                show_size(free),
                there.display()
            );
            if free >= wanted {
                good(what, text)
            } else {
                weak(what, format!("{text}: lower `code_disk` or `log_disk`, or give it more room"))
            }
        }
        Err(errno) => weak(what, format!("not examined: {}: {errno}", there.display())),
    }
}

fn init(config: &Config) -> Finding {
    match init_program::find(config) {
        Ok(Place::Named(path) | Place::Beside(path)) => good("faaster-init", path.display()),
        Ok(Place::BuiltIn) => good("faaster-init", "built in"),
        Err(error) => missing("faaster-init", error),
    }
}

/// Runtimes as the engine would find them; the shipped ones are unpacked for the time of the examination.
fn languages(config: &Config) -> Vec<Finding> {
    let Ok(folder) = tempfile::tempdir() else {
        return vec![weak("runtimes", "not examined: no temporary directory can be made")];
    };
    if let Err((path, error)) = embedded::unpack(folder.path()) {
        return vec![weak("runtimes", format!("not examined: {}: {error}", path.display()))];
    }
    let folders: Vec<_> = std::iter::once(folder.path())
        .chain(config.runtimes.iter().map(|p| Path::new(p.as_path())))
        .map(Path::to_owned)
        .collect();
    match runtimes::find(&folders, &BTreeMap::new(), &mut Roots::new(&config.rootfs, &config.data)) {
        Err(error) => vec![missing("runtimes", error)],
        Ok(found) if found.runtimes.is_empty() => vec![missing("runtimes", "no language is installed")],
        Ok(found) => {
            let usable = found.runtimes.iter().map(|runtime| {
                good("runtime", format!("{} {}", runtime.name, runtime.version).trim_end().to_owned())
            });
            let others =
                found.unusable.iter().map(|(name, reason)| weak("runtime", format!("{name}: {reason}")));
            usable.chain(others).collect()
        }
    }
}

fn port(what: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => good(what, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => weak(
            what,
            format!("{address} is taken by {}", holder::describe(&holder::of_port(address.port()))),
        ),
        Err(error) => missing(what, format!("{address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_weak_and_a_foreign_address_missing() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let finding = port("port", taken.local_addr().unwrap());
        assert_eq!(finding.verdict, Verdict::Weak, "{finding:?}");
        assert!(finding.text.contains(&std::process::id().to_string()), "{finding:?}");
        assert_eq!(port("port", "192.0.2.1:1".parse().unwrap()).verdict, Verdict::Missing);
    }
}
