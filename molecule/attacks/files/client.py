"""Sends bytes as they are, in the pace that it is told, and tells what came back and what the application saw.

Called with a plan (see Front.send in tests/conftest.py), packed; prints what happened as one line of JSON.
"""

import base64
import contextlib
import json
import socket
import ssl
import sys
import time
import zlib

plan = json.loads(zlib.decompress(base64.b64decode(sys.argv[1])))
log = f"/run/seen/{plan['log']}.jsonl"
with open(log, "w"):
    """What was there is of no interest."""

result = {"answer": b"", "ended": "open", "handshake": "", "protocol": None}
started = time.monotonic()


def connect(source, alpn):
    stream = socket.create_connection(("127.0.0.1", plan["port"]), 5, (source, 0))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not plan["tls"]:
        return stream
    context = ssl.create_default_context(cafile="/var/lib/fastapi/placeholder/shop/fullchain.pem")
    context.check_hostname = False
    context.set_alpn_protocols([alpn])
    stream = context.wrap_socket(stream, server_hostname=plan["sni"] or None)
    result["protocol"] = stream.selected_alpn_protocol()
    return stream


def listen(seconds):
    """Whether the connection is still there after so long, or as soon as the answer has what the plan waits for."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        if plan["until"] and plan["until"].encode("latin-1") in result["answer"]:
            return False
        stream.settimeout(rest)
        try:
            data = stream.recv(1 << 16)
        except TimeoutError:
            break
        if not data:
            result["ended"] = "closed"
            return False
        result["answer"] += data
    return True


others = []
try:
    for data in plan["others"]:  # connections that stay open beside the one that is watched
        others.append(connect("127.0.0.1", plan["others_alpn"]))
        others[-1].sendall(data.encode("latin-1"))
    stream = connect(plan["source"], plan["alpn"])
    try:
        for data, times, pause in plan["send"]:
            for _ in range(times):
                stream.sendall(data.encode("latin-1"))
                if pause and not listen(pause):
                    break
            if result["ended"] != "open":
                break
        else:
            if plan["read"]:
                listen(plan["wait"])
            else:
                time.sleep(plan["wait"])
    except (OSError, ssl.SSLError) as error:
        result["ended"] = "reset"
        result["error"] = str(error)
        with contextlib.suppress(OSError):  # what was sent before is of interest all the same
            listen(1)
except (ssl.SSLError, ConnectionResetError) as error:
    result["ended"], result["handshake"] = "refused", str(error)

result["seconds"] = time.monotonic() - started
result["answer"] = result["answer"].decode("latin-1")
with open(log) as file:
    result["seen"] = [json.loads(line) for line in file if line.endswith("\n")]
print(json.dumps(result))
