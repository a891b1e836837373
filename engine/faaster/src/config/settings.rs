//! The table of settings: one row gives a flag, an environment variable, a key of the file, a help line and a default.
//!
//! Owns: names and defaults. Must not know: what a value means (that is [`super`]'s), where it came from.

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One value.
    One,
    /// `true` or `false`; the bare flag means `true`.
    Switch,
    /// Several values: a list in the file, separated by commas elsewhere; the flag may be repeated.
    Many,
    /// Pairs `name=value`: a table in the file, separated by commas elsewhere; the flag may be repeated.
    Pairs,
}

/// One setting. The flag is `--name` with dashes, the variable `FAASTER_NAME`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Key in the file.
    pub name: &'static str,
    /// What stands for the value in the help.
    pub placeholder: &'static str,
    /// As it would be typed; empty for an empty list.
    pub default: &'static str,
    pub shape: Shape,
    pub help: &'static str,
}

impl Setting {
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    pub(crate) fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.to_ascii_uppercase())
    }
}

/// All variables of ours begin with this.
pub(crate) const ENVIRONMENT_PREFIX: &str = "FAASTER_";

/// Variables that are no settings of the engine but of the command line (`faaster --help`).
pub(crate) const CLIENT_VARIABLES: [&str; 4] =
    ["FAASTER_CONFIG", "FAASTER_CONTROLLER", "FAASTER_REGISTRY", "FAASTER_ACCOUNT"];

const fn row(
    name: &'static str,
    placeholder: &'static str,
    default: &'static str,
    shape: Shape,
    help: &'static str,
) -> Setting {
    Setting { name, placeholder, default, shape, help }
}

use Shape::{Many, One, Pairs, Switch};

/// Every setting of the engine.
pub(crate) const SETTINGS: &[Setting] = &[
    row(
        "listen",
        "ADDRESS",
        "127.0.0.1:8001",
        One,
        "Address of the controller: invocations and HTTP triggers",
    ),
    row("registry_listen", "ADDRESS", "127.0.0.1:8002", One, "Address of the function registry"),
    row("data", "DIR", "/var/lib/faaster", One, "Where functions and their code are kept"),
    row("run", "DIR", "/run/faaster", One, "Where run-time files live; nothing in it outlasts the engine"),
    row("shards", "COUNT", "auto", One, "Threads that serve requests; auto: one per core that may be used"),
    row("funclets", "COUNT", "1", One, "Processes that make containers"),
    row(
        "default_account",
        "ACCOUNT",
        "df391b08c64c426a81645468c75163a5",
        One,
        "Account of a caller that names none",
    ),
    row("simple_auth", "BOOL", "true", Switch, "Only a function's owner may call and see it"),
    row("http_trigger", "BOOL", "true", Switch, "Serve /{user}/{function}[/{version}] as HTTP triggers"),
    row("max_runtime_idle", "DURATION", "300s", One, "An instance that has had no call for longer is ended"),
    row(
        "boot_timeout",
        "DURATION",
        "10s",
        One,
        "A prepared container that is not ready after this long is given up",
    ),
    row(
        "freeze_after",
        "DURATION",
        "30s",
        One,
        "The processes of an instance that has had no call for longer are stopped until the next; or never",
    ),
    row(
        "reclaim_frozen",
        "BOOL",
        "true",
        Switch,
        "Move the memory of stopped instances to swap, where the host has swap and cgroup v2",
    ),
    row(
        "health_interval",
        "DURATION",
        "10s",
        One,
        "An idle runtime that was silent for longer is asked whether it still answers; or never",
    ),
    row(
        "health_timeout",
        "DURATION",
        "5s",
        One,
        "One that does not answer within this is ended and replaced",
    ),
    row("memory", "SIZE", "80%", One, "Memory of the node for functions: a size, or a part of the machine's"),
    row(
        "memory_overcommit",
        "FACTOR",
        "4",
        One,
        "How often the memory may be promised; functions seldom use what they may",
    ),
    row(
        "placement",
        "WHERE",
        "home-core",
        One,
        "Where instances run: home-core (on their shard's core, others when it is busy) or free",
    ),
    row("runtimes", "DIR", "", Many, "Folders with more runtimes; one of a known name replaces it"),
    row(
        "pool",
        "NAME=COUNT",
        "",
        Pairs,
        "Prepared containers to keep, by runtime; others as runtime.toml says",
    ),
    row(
        "pool_max",
        "COUNT",
        "64",
        One,
        "What demand may raise a runtime's prepared containers to, as far as memory and slots allow",
    ),
    row(
        "pool_fall_after",
        "DURATION",
        "60s",
        One,
        "So long after the latest peak of demand a quarter of what it raised a pool by is given up, and again",
    ),
    row("init", "FILE", "auto", One, "The program that is process 1 of containers; auto: the one shipped"),
    row(
        "rootfs",
        "[NAME=]WHAT",
        "host",
        Pairs,
        "What containers see as /: host (the machine's own /usr, read-only), an imported root file system or a directory; for one runtime, or for all others",
    ),
    row(
        "network",
        "MODE",
        "egress",
        One,
        "What functions reach that name no mode: none, egress (the world) or full (this host and its networks, too); off: nobody anything",
    ),
    row(
        "network_subnet",
        "SUBNET",
        "auto",
        One,
        "IPv4 addresses of containers, as 10.213.0.0/16; auto: a private subnet that this host does not use",
    ),
    row("network_ipv6", "WHERE", "auto", One, "IPv6 for containers: auto (if the host has it) or off"),
    row(
        "network_mtu",
        "BYTES",
        "auto",
        One,
        "Largest packet of containers; auto: as on the host's way to the world",
    ),
    row("network_dns", "ADDRESS", "", Many, "DNS servers of containers; the host's, unless said"),
    row("slots_max", "COUNT", "1000", One, "Containers at once"),
    row("connections_max", "COUNT", "16384", One, "Client connections at once, per shard"),
    row("engine_uid", "UID", "64901", One, "User that the engine runs as; must not be 0"),
    row("engine_gid", "GID", "64901", One, "Group that the engine runs as; must not be 0"),
    row("grace", "DURATION", "30s", One, "How long a stop waits for calls that are in flight"),
    row(
        "fault_points",
        "DIR",
        "",
        One,
        "For tests: files in this folder of root's end funclets at named places",
    ),
    row("log_disk", "SIZE", "1GiB", One, "Logs of functions on disk, the oldest go first; 0: none"),
    row("log_disk_per_function", "SIZE", "16MiB", One, "Same for one function"),
    row(
        "code_disk",
        "SIZE",
        "20GiB",
        One,
        "Code of functions on disk; unpacked code that is not in use makes room, or uploads are refused",
    ),
    row(
        "code_idle",
        "DURATION",
        "168h",
        One,
        "Unpacked code that no instance ran for longer is removed until the next call; or never",
    ),
    row("log_level", "LEVEL", "info", One, "What is said on standard error: error, warn, info or debug"),
];

/// The row of this name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
