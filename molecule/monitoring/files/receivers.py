"""Receivers of alerts, as they are out there: HTTP and SMTP. Each message becomes a line of JSON in a file."""

import asyncio
import http.server
import json
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

LOG = sys.argv[1]


def note(**message):
    with open(LOG, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(kind=self.path.strip("/"), body=body, authorization=self.headers.get("Authorization"))
        # As Slack answers: Alertmanager 0.28 takes nothing else for a success.
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


class Mailbox:
    async def handle_DATA(self, server, session, envelope):
        kind = "mail" if "ops@example.com" in envelope.rcpt_tos else "alert-mail"
        note(kind=kind, to=envelope.rcpt_tos, text=envelope.content.decode("utf-8", "replace"))
        return "250 OK"


def password(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"monitor", b"s33d-of-the-mail")
    return AuthResult(success=right, handled=right)


def secure(folder):
    """What mail providers ask for: TLS, from the start on or after it, and a password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/fullchain.pem", f"{folder}/privkey.pem")
    demand = {"authenticator": password, "auth_required": True}
    starttls = {"tls_context": context, "require_starttls": True}
    Controller(Mailbox(), hostname="127.0.0.1", port=2526, **starttls, **demand).start()
    # Inside TLS already, so that no STARTTLS comes before the password.
    Controller(
        Mailbox(), hostname="127.0.0.1", port=2527, ssl_context=context, auth_require_tls=False, **demand
    ).start()


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    if len(sys.argv) > 2:
        secure(sys.argv[2])
        threading.Event().wait()
    Controller(Mailbox(), hostname="127.0.0.1", port=2525).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", 8025), Webhook).serve_forever()
