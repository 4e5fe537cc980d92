"""Receivers of alerts, as they are out there: HTTP and SMTP. Each message becomes a line of JSON in a file."""

import asyncio
import http.server
import json
import sys

from aiosmtpd.controller import Controller

LOG = sys.argv[1]


def note(**message):
    with open(LOG, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(kind=self.path.strip("/"), body=body, authorization=self.headers.get("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Mailbox:
    async def handle_DATA(self, server, session, envelope):
        note(kind="mail", to=envelope.rcpt_tos, text=envelope.content.decode("utf-8", "replace"))
        return "250 OK"


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    Controller(Mailbox(), hostname="127.0.0.1", port=2525).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", 8025), Webhook).serve_forever()
