//! Which DNS servers the containers ask: the host's real ones, or configured ones.
//!
//! Owns: the reading of resolv.conf(5) and the writing of the containers' own. Must not know: where the texts come from. Pure.

use std::net::IpAddr;

/// Where the host's servers are looked for: what programs use; what systemd-resolved and NetworkManager ask themselves
/// when programs are told to ask a resolver on the loopback.
pub(crate) const FILES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// Servers that the C library asks (MAXNS of resolv.h).
const SERVERS_MAX: usize = 3;
/// Bytes of a file that are read.
pub(crate) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Whether containers have IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    V4,
    Both,
}

/// What containers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub servers: Vec<IpAddr>,
    /// Their /etc/resolv.conf.
    pub text: String,
    /// Where the servers were found.
    pub source: String,
}

/// Finds the servers: the configured ones, else those of the first file that names one that containers can reach. A resolver
/// on the loopback is the host's own, not theirs.
pub(crate) fn resolve(configured: &[IpAddr], files: &[(&str, String)], kinds: Kinds) -> Resolution {
    let usable = |server: &IpAddr| {
        let kind_fits = server.is_ipv4() || kinds == Kinds::Both;
        kind_fits && !server.is_loopback() && !server.is_unspecified() && !is_link_local_v6(*server)
    };
    let found = |text: &str| -> Vec<IpAddr> { servers_of(text).filter(usable).take(SERVERS_MAX).collect() };
    let (servers, source) = if configured.is_empty() {
        files
            .iter()
            .map(|(path, text)| (found(text), (*path).to_owned()))
            .find(|(servers, _)| !servers.is_empty())
            .unwrap_or_default()
    } else {
        let fitting = configured.iter().copied().filter(usable).take(SERVERS_MAX);
        (fitting.collect(), "network_dns".to_owned())
    };
    let mut text = servers.iter().map(|server| format!("nameserver {server}\n")).collect::<String>();
    if servers.is_empty() {
        text.push_str("# This host names no DNS server that containers can reach.\n");
    }
    // How names are looked up is the host's own business, wherever its servers are named.
    let host = files.first().map_or("", |(_, text)| text);
    for line in host.lines().filter(|line| is_directive(line, "search") || is_directive(line, "options")) {
        text.push_str(line.trim());
        text.push('\n');
    }
    Resolution { servers, text, source }
}

fn servers_of(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines()
        .filter(|line| is_directive(line, "nameserver"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
}

fn is_directive(line: &str, word: &str) -> bool {
    line.split_whitespace().next() == Some(word)
}

/// A link's own address is of no use on another link.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(configured: &[&str], files: &[&str], kinds: Kinds) -> (Vec<String>, String) {
        let configured: Vec<IpAddr> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let files: Vec<(&str, String)> =
            FILES.into_iter().zip(files.iter().map(|text| (*text).to_owned())).collect();
        let found = resolve(&configured, &files, kinds);
        (found.servers.iter().map(ToString::to_string).collect(), found.source)
    }

    #[test]
    fn a_loopback_resolver_is_replaced_by_those_it_asks() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.net\n";
        let real = "# systemd\nnameserver 192.168.1.1\nnameserver fd00::53\nnameserver 1.1.1.1\n";
        assert_eq!(
            servers(&[], &[stub, real], Kinds::V4),
            (vec!["192.168.1.1".to_owned(), "1.1.1.1".to_owned()], FILES[1].to_owned())
        );
        assert_eq!(servers(&[], &[stub, real], Kinds::Both).0.len(), 3);
        let files = [(FILES[0], stub.to_owned()), (FILES[1], real.to_owned())];
        assert_eq!(
            resolve(&[], &files, Kinds::V4).text,
            "nameserver 192.168.1.1\nnameserver 1.1.1.1\noptions edns0 trust-ad\nsearch example.net\n"
        );
    }

    #[test]
    fn configured_servers_count_and_nothing_is_made_up() {
        let host = "nameserver 10.0.0.2\n";
        assert_eq!(
            servers(&["9.9.9.9"], &[host], Kinds::V4),
            (vec!["9.9.9.9".to_owned()], "network_dns".to_owned())
        );
        assert_eq!(servers(&[], &["nameserver ::1\nnameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 0.0.0.0\nnameserver\n"], Kinds::Both).0.len(), 0);
        let none = resolve(&[], &[], Kinds::V4);
        assert!(none.servers.is_empty() && none.text.starts_with("# "), "{none:?}");
        assert_eq!(
            servers(&[], &[" nameserver 1.1.1.1 # first\nnameserverX 2.2.2.2"], Kinds::V4).0,
            ["1.1.1.1"]
        );
        assert_eq!(
            servers(
                &[],
                &["nameserver 1.1.1.1\nnameserver 1.0.0.1\nnameserver 8.8.8.8\nnameserver 8.8.4.4"],
                Kinds::V4
            )
            .0
            .len(),
            3
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9:. \n%#/]{0,200}") {
            drop(resolve(&[], &[("x", text)], Kinds::Both));
        }
    }
}
