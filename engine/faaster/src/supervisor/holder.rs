//! Who listens on a port: from `/proc/net/tcp` and the descriptors of all processes.
//!
//! Owns: the reading of both. Must not know: why it is asked.

use std::collections::BTreeSet;
use std::fs;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub pid: u32,
    /// Name of its program, at most 15 bytes (`/proc/PID/comm`).
    pub name: String,
}

/// `TCP_LISTEN` of include/net/tcp_states.h, as `/proc/net/tcp` prints it.
const LISTEN: &str = "0A";

/// Processes that may hold the port, as far as they can be seen from here.
pub(crate) fn of_port(port: u16) -> Vec<Holder> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        inodes.extend(listening_inodes(&fs::read_to_string(table).unwrap_or_default(), port));
    }
    let targets: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut holders: Vec<Holder> = pids.filter(|pid| holds(*pid, &targets)).map(named).collect();
    holders.sort();
    holders
}

/// For an error message.
pub(crate) fn describe(holders: &[Holder]) -> String {
    match holders {
        [] => "a process that cannot be seen from here (another network user or container)".to_owned(),
        holders => {
            let names: Vec<_> =
                holders.iter().map(|holder| format!("{} (pid {})", holder.name, holder.pid)).collect();
            names.join(", ")
        }
    }
}

/// Inodes of the sockets in a table like `/proc/net/tcp` that listen on the port.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, ..] = fields[..] else { return None };
        let (_, local_port) = local.rsplit_once(':')?;
        let matches = state == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn holds(pid: u32, targets: &BTreeSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| targets.contains(target)))
}

fn named(pid: u32) -> Holder {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Holder { pid, name: name.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 20 4 30 10 -1
   2: 0100007F:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0 100 0 0 10 0
   3: garbage
";

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        assert_eq!(listening_inodes(TABLE, 8001), [4242]);
        assert_eq!(listening_inodes(TABLE, 8003), [0; 0]);
    }

    proptest::proptest! {
        #[test]
        fn no_table_panics(table in "(.{0,40}\n){0,4}") {
            drop(listening_inodes(&table, 80));
        }
    }
}
