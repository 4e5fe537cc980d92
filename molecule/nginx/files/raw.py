"""Sends bytes as they are to nginx over TLS, or to the application's own socket. Prints as JSON what comes back.

Called with where to (tls, socket), and the bytes in base64.
"""

import base64
import json
import socket
import ssl
import sys

if sys.argv[1] == "tls":
    plain = socket.create_connection(("127.0.0.1", 443), 5)
    stream = ssl._create_unverified_context().wrap_socket(plain, server_hostname="shop.example.com")
else:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect("/run/backend.sock")
stream.settimeout(2)
stream.sendall(base64.b64decode(sys.argv[2]))
answer, closed = b"", True
try:
    while data := stream.recv(65536):
        answer += data
except TimeoutError:
    closed = False
except OSError:
    pass
print(json.dumps({"answer": answer.decode("latin-1"), "closed": closed}))
