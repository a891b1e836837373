//! Whether a network namespace shows that a container has used it.
//!
//! Owns: what the kernel's counts in /proc/net mean for that. Must not know: how one comes into a namespace.
//!
//! A container cannot configure its network, so what it leaves behind there comes of packets and of connections: flows
//! that the host tracks, ports that wait for late packets, what the kernel has learnt of a route. Where neither a socket is
//! left nor a packet has gone either way there is nothing. The kernel's own packets do not count: where there is IPv6 it
//! tells its neighbours which groups a link listens to.

use std::path::Path;

/// Of the thread that looks.
const FOLDER: &str = "/proc/thread-self/net";
/// Messages of IPv6 that the kernel sends by itself when a link comes up: solicitations of routers and neighbours (RFC
/// 4861), reports of groups (RFC 3810). Flows are not tracked of them.
const OWN_MESSAGES: [&str; 3] = ["Icmp6OutType133", "Icmp6OutType135", "Icmp6OutType143"];
/// What neighbours said to groups.
const OVERHEARD: &str = "Ip6InMcastPkts";

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    No,
    /// There are sockets, but none with an address: closed ones, perhaps, which the kernel takes away a little later.
    Open,
    Yes,
}

/// Looks at the namespace that this thread is in, where the container's end of its link has this name.
///
/// # Errors
/// /proc does not show it.
pub(super) fn look(link: &str) -> std::io::Result<Touched> {
    let folder = Path::new(FOLDER);
    let sockets = std::fs::read_to_string(folder.join("sockstat"))?;
    let devices = std::fs::read_to_string(folder.join("dev"))?;
    // Only where the kernel has IPv6.
    let v6 = |file| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    Ok(judge(link, &[&sockets, &v6("sockstat6")], &devices, &v6("snmp6")))
}

fn judge(link: &str, sockets: &[&str], devices: &str, v6: &str) -> Touched {
    let own: u64 = OWN_MESSAGES.iter().filter_map(|name| value(v6, name)).sum();
    let overheard = value(v6, OVERHEARD).unwrap_or(0);
    let is_quiet = packets(devices, link).is_some_and(|(inn, out)| inn <= overheard && out <= own);
    let count = |names: &[&str]| sockets.iter().map(|text| count(text, names)).sum::<u64>();
    match is_quiet {
        // Those in use of each protocol, and connections that have ended and wait for late packets.
        true if count(&["inuse", "tw"]) > 0 => Touched::Yes,
        true if count(&["used"]) > 0 => Touched::Open,
        true => Touched::No,
        false => Touched::Yes,
    }
}

/// Of /proc/net/sockstat: lines of a name with a colon, then words, each with its number.
fn count(text: &str, names: &[&str]) -> u64 {
    let of_line = |line: &str| -> u64 {
        let words: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
        let wanted = words.chunks_exact(2).filter(|pair| names.contains(&pair[0]));
        // What is no number is not understood, and is not nothing.
        wanted.map(|pair| pair[1].parse().unwrap_or(1)).sum()
    };
    text.lines().map(of_line).sum()
}

/// Received and sent ones, of /proc/net/dev: the second number of each side.
fn packets(devices: &str, link: &str) -> Option<(u64, u64)> {
    let numbers = devices.lines().find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?;
    let number = |at: usize| numbers.split_ascii_whitespace().nth(at)?.parse().ok();
    Some((number(1)?, number(9)?))
}

/// Of a file with a name and a number in each line.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SOCKET: &str = "sockets: used 0\nTCP: inuse 0 orphan 3 tw 0 alloc 5 mem 1\nUDP: inuse 0 mem 2\n\
        UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";
    const NO_SOCKET_6: &str = "TCP6: inuse 0\nUDP6: inuse 0\nFRAG6: inuse 0 memory 0\n";

    /// /proc/net/dev of a namespace whose loopback has been used.
    fn devices(received: u64, sent: u64) -> String {
        format!(
            "Inter-|   Receive                 |  Transmit\n face |bytes packets errs ...\n    \
             lo: 84 1 0 0 0 0 0 0 84 1 0 0 0 0 0 0\n  \
             eth0: 70 {received} 0 0 0 0 0 0 180 {sent} 0 0 0 0 0 0\n"
        )
    }

    fn snmp6(overheard: u64, reports: u64) -> String {
        format!(
            "Ip6InReceives 9\nIp6InMcastPkts\t{overheard}\nIcmp6OutType135  1\nIcmp6OutType143    {reports}\n"
        )
    }

    #[test]
    fn nothing_left_and_nothing_sent_is_untouched() {
        let judged = |devices: &str, v6: &str| judge("eth0", &[NO_SOCKET, NO_SOCKET_6], devices, v6);
        assert_eq!(judged(&devices(0, 0), ""), Touched::No);
        // The kernel's own words: two reports and a solicitation out, one report in.
        assert_eq!(judged(&devices(1, 3), &snmp6(1, 2)), Touched::No);
        assert_eq!(judged(&devices(1, 4), &snmp6(1, 2)), Touched::Yes);
        assert_eq!(judged(&devices(2, 3), &snmp6(1, 2)), Touched::Yes);
        assert_eq!(judged(&devices(1, 0), ""), Touched::Yes);
        assert_eq!(judged(&devices(0, 1), ""), Touched::Yes);
        assert_eq!(judged("", ""), Touched::Yes, "there is no such link");
    }

    #[test]
    fn a_socket_that_is_left_shows() {
        for (from, to, expected) in [
            ("used 0", "used 1", Touched::Open),
            ("used 0", "used ?", Touched::Open),
            ("TCP: inuse 0", "TCP: inuse 1", Touched::Yes),
            ("tw 0", "tw 12", Touched::Yes),
            ("RAW: inuse 0", "RAW: inuse 2", Touched::Yes),
        ] {
            let text = NO_SOCKET.replace(from, to);
            assert_ne!(text, NO_SOCKET);
            assert_eq!(judge("eth0", &[&text], &devices(0, 0), ""), expected, "{to}");
            assert_eq!(judge("eth0", &[&text], &devices(0, 1), ""), Touched::Yes, "{to}");
        }
        let text = NO_SOCKET_6.replace("UDP6: inuse 0", "UDP6: inuse 1");
        assert_eq!(judge("eth0", &[NO_SOCKET, &text], &devices(0, 0), ""), Touched::Yes);
        assert_eq!(judge("eth0", &[NO_SOCKET, ""], &devices(0, 0), ""), Touched::No, "no IPv6");
    }

    #[test]
    fn the_kernel_of_this_machine_says_it_that_way() {
        // Whatever the answer, this namespace's files are understood.
        let devices = std::fs::read_to_string(Path::new(FOLDER).join("dev")).unwrap();
        assert!(packets(&devices, "lo").is_some(), "{devices}");
        let sockets = std::fs::read_to_string(Path::new(FOLDER).join("sockstat")).unwrap();
        assert!(sockets.starts_with("sockets: used ") && sockets.contains("TCP: inuse "), "{sockets}");
        assert_eq!(
            count("sockets: used 183\nTCP: inuse 4 orphan 1 tw 2 alloc 5 mem 1\n", &["inuse", "tw"]),
            6
        );
    }
}
