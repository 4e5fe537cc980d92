"""The world outside the host, on 127.0.0.1:8098: git repositories, packages, and an ear for what hostile code reports.

Each request is a line of JSON in the log, with the uid that the kernel knows for its connection.
"""

import base64
import glob
import gzip
import html
import http.server
import json
import os
import subprocess
import time
import urllib.parse

ROOT = "/srv/outside"
LOG = "/run/outside-server/log.jsonl"
# The repository of beta is private; its token is in the URL of its source.
with open(f"{ROOT}/secrets", encoding="utf-8") as secrets:
    PRIVATE = {"beta": "deploy:" + secrets.readline().strip()}


def owner(port):
    """The uid whose connection to this server comes from the port."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        lines = table.readlines()
    for line in lines:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[2].endswith(f":{8098:04X}"):
            return int(fields[7])
    return None


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *unused):
        pass

    def note(self, body=None):
        line = {"time": time.time(), "uid": owner(self.client_address[1]), "path": self.path, "body": body}
        with open(LOG, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/report":
            self.note(json.loads(body))
            return self.reply(204)
        self.note()
        return self.git(body)

    def do_GET(self):
        path = urllib.parse.unquote(self.path)
        self.note()
        if path.startswith("/git/"):
            return self.git(b"")
        if path == "/index/":
            links = "".join(
                f'<a href="{html.escape(os.path.basename(name))}">{html.escape(os.path.basename(name))}</a>\n'
                for name in glob.glob(f"{ROOT}/index/*")
            )
            return self.reply(200, links.encode(), Content_Type="text/html")
        if path.startswith("/index/") and os.path.isfile(ROOT + path) and ".." not in path:
            with open(ROOT + path, "rb") as stream:
                return self.reply(200, stream.read(), Content_Type="application/octet-stream")
        return self.reply(404)

    do_HEAD = do_GET

    def git(self, body):
        url = urllib.parse.urlsplit(self.path)
        wanted = PRIVATE.get(url.path.split("/")[2].removesuffix(".git"))
        shown = self.headers.get("Authorization", "").removeprefix("Basic ")
        if wanted and base64.b64decode(shown).decode() != wanted:
            return self.reply(401, WWW_Authenticate='Basic realm="git"')
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            stdout=subprocess.PIPE,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": f"{ROOT}/git",
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": url.path.removeprefix("/git"),
                "QUERY_STRING": url.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            },
        ).stdout
        head, _, rest = done.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        fields.pop("Content-Length", None)
        return self.reply(int(fields.pop("Status", "200").split()[0]), rest, **fields)


http.server.ThreadingHTTPServer(("127.0.0.1", 8098), Answer).serve_forever()
