"""The world behind a test's network: answers whoever reaches it with the address that it sees, and notes datagrams.

world.py NOTES PORT ADDRESS ...: says `in`, waits for a line, gives the addresses to its link, says `ready`; ends with its input.
"""

import socket
import subprocess
import sys
import threading


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def serve_tcp(family, port):
    server = socket.create_server(("", port), family=family)
    while True:
        peer, address = server.accept()
        with peer:
            peer.sendall(address[0].encode())


def serve_udp(family, address, port, notes):
    """One socket per address: an answer must come from where the question went."""
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, port))
    while True:
        payload, peer = server.recvfrom(1000)
        with open(notes, "a") as file:
            file.write(f"{payload.decode()} {peer[0]}\n")
        server.sendto(peer[0].encode(), peer)


def main():
    notes, port, *addresses = sys.argv[1:]
    print("in", flush=True)
    sys.stdin.readline()
    ip("link", "set", "lo", "up")
    ip("link", "set", "gate", "up")
    for address in addresses:
        # The first of each kind is the link's own.
        v6 = ":" in address
        on_link = address.startswith(("198.51.100.", "2001:db8:100:"))
        mask = ("64" if v6 else "24") if on_link else ("128" if v6 else "32")
        ip("addr", "add", f"{address}/{mask}", "dev", "gate" if on_link else "lo", *(["nodad"] if v6 and on_link else []))
    jobs = []
    for number in (int(port), 53):
        jobs += [(serve_tcp, (socket.AF_INET, number))]
        jobs += [(serve_udp, (socket.AF_INET6 if ":" in address else socket.AF_INET, address, number, notes)) for address in addresses]
    # A socket of IPv6 alone, as the other kind has its own.
    jobs += [(serve_tcp, (socket.AF_INET6, int(port)))]
    for job, arguments in jobs:
        threading.Thread(target=job, args=arguments, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


main()
