"""Ways by sockets: raw ones, the host's, the engine's own; changes of the network."""
import socket
import struct

from attempts import attempt

EVENT = {}
AF_ALG, AF_VSOCK, AF_XDP, AF_BLUETOOTH = 38, 40, 44, 31
NETLINK_NFLOG, NETLINK_AUDIT, NETLINK_NETFILTER, NETLINK_KOBJECT, NETLINK_SOCK_DIAG = 5, 9, 12, 15, 4


def opening(name, family, kind, protocol=0):
    def function():
        socket.socket(family, kind, protocol).close()
    function.__name__ = name
    attempt(function)


for name, *arguments in (
    ("raw_socket", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), ("raw_socket_6", socket.AF_INET6, socket.SOCK_RAW, 58),
    ("packet_socket", socket.AF_PACKET, socket.SOCK_RAW), ("packet_socket_cooked", socket.AF_PACKET, socket.SOCK_DGRAM),
    ("vsock", AF_VSOCK, socket.SOCK_STREAM), ("crypto_socket", AF_ALG, socket.SOCK_SEQPACKET), ("xdp_socket", AF_XDP, socket.SOCK_RAW),
    ("bluetooth", AF_BLUETOOTH, socket.SOCK_RAW, 1), ("netlink_audit", socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT),
    ("netlink_netfilter", socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER),
    ("netlink_device_events", socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT),
    ("netlink_socket_table", socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG),
):
    opening(name, *arguments)


def netlink(kind, body):
    """Sends one routing request and raises what the kernel answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(5)
        link.sendto(struct.pack("IHHII", 16 + len(body), kind, 0x1 | 0x4 | 0x400, 1, 0) + body, (0, 0))
        answer = link.recv(4096)
    number = struct.unpack_from("i", answer, 16)[0]
    if number < 0:
        raise OSError(-number, "netlink")


@attempt
def netlink_new_device():
    """RTM_NEWLINK for a device of kind dummy."""
    kind = struct.pack("HH", 4 + 6, 1) + b"dummy\0" + b"\0\0"
    netlink(16, struct.pack("BxHiII", 0, 0, 0, 0, 0) + struct.pack("HH", 4 + len(kind), 18) + kind)


@attempt
def netlink_new_address():
    """RTM_NEWADDR 10.9.8.7/32 on the loopback device."""
    address = socket.inet_aton("10.9.8.7")
    netlink(20, struct.pack("BBBBI", socket.AF_INET, 32, 0, 0, 1) + struct.pack("HH", 8, 2) + address)


@attempt
def netlink_new_route():
    """RTM_NEWROUTE, a default one by the loopback device."""
    netlink(24, struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 253, 1, 0) + struct.pack("HHI", 8, 4, 1))


@attempt
def mark_packets():
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)


@attempt
def abstract_socket_of_the_host():
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect("\0" + EVENT["abstract"])


@attempt
def named_socket_of_the_host():
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(EVENT["named"])


def by_loopback(name, which):
    def function():
        with socket.create_connection(("127.0.0.1", EVENT["ports"][which]), 5):
            pass
    function.__name__ = name
    attempt(function)


by_loopback("controller_by_loopback", 0)
by_loopback("registry_by_loopback", 1)


@attempt
def works_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
        pass


@attempt
def works_unix_pair():
    first, second = socket.socketpair()
    first.close()
    second.close()
