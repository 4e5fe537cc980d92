"""Asks sites of this host for a page until a file is gone, and notes every answer and every certificate.

Called with the file, the seconds between two questions of a client, and the names of the sites. For each site one
client asks over a connection that it keeps, one over a new
connection each time. Prints {name: {answers: {...}, resent: n, certificates: [serial, ...]}} as JSON.
"""

import collections
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

FILE, PAUSE, *NAMES = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
seen = {name: {"answers": collections.Counter(), "resent": 0, "certificates": []} for name in NAMES}


class Client(http.client.HTTPConnection):
    def connect(self):
        plain = socket.create_connection(("127.0.0.1", 443), 10)
        self.sock = context.wrap_socket(plain, server_hostname=self.host)
        certificate = self.sock.getpeercert(binary_form=True)
        if certificate not in seen[self.host]["certificates"]:
            seen[self.host]["certificates"].append(certificate)


def ask(client):
    client.request("GET", "/page.txt")
    response = client.getresponse()
    return f"{response.status} {response.read().decode()}"


def watch(name, keep):
    client = Client(name, timeout=10)
    while os.path.exists(FILE):
        used = client.sock is not None
        try:
            answer = ask(client)
        except (OSError, http.client.HTTPException) as error:
            client.close()
            answer = repr(error)
            # nginx closed the connection while it was idle: the question is asked again, as browsers do (RFC 9112,
            # 9.3.1).
            if used and isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
                seen[name]["resent"] += 1
                continue
        seen[name]["answers"][answer] += 1
        if not keep:
            client.close()
        time.sleep(float(PAUSE))


def serial(certificate):
    done = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-serial"], input=certificate, capture_output=True, check=True
    )
    return done.stdout.decode().strip().partition("=")[2].lower().lstrip("0")


open(FILE, "w", encoding="utf-8").close()
threads = [threading.Thread(target=watch, args=(name, keep)) for name in NAMES for keep in (True, False)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for found in seen.values():
    found["certificates"] = [serial(certificate) for certificate in found["certificates"]]
print(json.dumps(seen))
