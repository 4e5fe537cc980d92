"""Writes to the journal what sshd would, by each way that an app has: syslog, the native socket, its own output."""

import ctypes
import socket
import sys

address = sys.argv[1]
PR_SET_NAME = 15
ctypes.CDLL(None).prctl(PR_SET_NAME, b"sshd", 0, 0, 0)
syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
syslog.connect("/dev/log")
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")
for number in range(8):
    line = f"Failed password for root from {address} port {5000 + number} ssh2"
    syslog.send(f"<38>sshd[{900 + number}]: {line}".encode())
    journal.send(
        f"PRIORITY=6\nSYSLOG_FACILITY=4\nSYSLOG_IDENTIFIER=sshd\nSYSLOG_PID={900 + number}\n"
        f"_SYSTEMD_UNIT=ssh.service\n_UID=0\n_COMM=sshd\nMESSAGE={line}\n".encode())
    print(line, flush=True)
