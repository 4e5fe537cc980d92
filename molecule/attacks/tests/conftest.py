"""The same attack against two: the role's nginx, and one that does what many do. All on the host, the attacker too."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from dataclasses import dataclass

import pytest


@dataclass
class Outcome:
    """What an attack brought: to the attacker, and to the application."""

    answer: str
    ended: str  # closed, reset, open, or refused: no handshake
    handshake: str
    protocol: str | None
    seconds: float
    seen: list[dict]
    error: str = ""

    @property
    def status(self) -> int:
        """Of the first answer; 0 if there is none."""
        return int(self.answer.split(" ")[1]) if self.answer.startswith("HTTP/1.1 ") else 0

    @property
    def statuses(self) -> list[int]:
        """Of all answers."""
        return [int(part.split(" ")[0]) for part in self.answer.split("HTTP/1.1 ")[1:]]

    @property
    def closed(self) -> bool:
        """By nginx; a reset is a close with something unread."""
        return self.ended in ("closed", "reset")

    def events(self, kind: str) -> list[dict]:
        return [event for event in self.seen if event["event"] == kind]

    @property
    def targets(self) -> list[str]:
        """What the application was asked for."""
        return [event["target"] for event in self.events("request")]

    def headers(self, name: str) -> list[str]:
        """The values of a header as they reached the application, in its first request."""
        return [value for key, value in self.events("request")[0]["headers"] if key == name]


class Front:
    """What stands before an application, and is attacked."""

    def __init__(self, host, name: str, tls: int, plain: int):
        self.host, self.name, self.tls, self.plain = host, name, tls, plain
        self.hardened = name == "hardened"

    def send(self, *parts, tls: bool = True, port: int = 0, sni: str = "shop.example.com", alpn: str = "http/1.1",
             wait: float = 3, until: str = "", read: bool = True, source: str = "127.0.0.1",
             others: list[str] | None = None, others_alpn: str = "http/1.1") -> Outcome:
        """Sends text, or (text, times, pause), then waits for the end of the connection or of the time.

        Each of the others is what is sent over a connection of 127.0.0.1 that stays open meanwhile.
        """
        plan = {
            "port": port or (self.tls if tls else self.plain), "tls": tls and not port, "sni": sni, "alpn": alpn,
            "log": self.name, "send": [part if isinstance(part, tuple) else (part, 1, 0) for part in parts],
            "wait": wait, "until": until, "read": read, "source": source,
            "others": others or [], "others_alpn": others_alpn,
        }
        packed = base64.b64encode(zlib.compress(json.dumps(plan).encode())).decode()
        return Outcome(**json.loads(self.host.check_output(
            f"python3 /usr/local/lib/attacks/client.py {shlex.quote(packed)}")))

    def ask(self, target: str, *headers: str, method: str = "GET", host: str = "shop.example.com", body: str = "",
            version: str = "1.1", **options) -> Outcome:
        """One request, as it is written."""
        lines = [f"{method} {target} HTTP/{version}", *([f"Host: {host}"] if host else []), "Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if body else []
        return self.send("\r\n".join([*lines, *headers, "", body]), **options)


@pytest.fixture(scope="module", autouse=True)
def naive_nginx(host):
    host.check_output("systemctl start attacks-naive")


@pytest.fixture
def hardened(host) -> Front:
    """By itself for attacks which no nginx lets through, however it is configured."""
    return Front(host, "hardened", 443, 80)


@pytest.fixture
def naive(host) -> Front:
    return Front(host, "naive", 8443, 8080)


@pytest.fixture(params=["hardened", "naive"])
def front(request, hardened, naive) -> Front:
    return hardened if request.param == "hardened" else naive


# -- HTTP/2, by hand ---------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(value: str) -> bytes:
    """A string of HPACK: not compressed, below 127 bytes."""
    return bytes([len(value)]) + value.encode("latin-1")


class Http2:
    RST_STREAM, GOAWAY = 3, 7
    PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)

    @staticmethod
    def headers(stream: int, *fields: tuple[str, str], path: str = "/", method: str = "GET", end: bool = True) -> bytes:
        every = [(":method", method), (":scheme", "https"), (":authority", "shop.example.com"), (":path", path)]
        block = b"".join(b"\x00" + text(name) + text(value) for name, value in [*every, *fields])
        return frame(1, 4 | end, stream, block)

    @staticmethod
    def data(stream: int, body: str) -> bytes:
        return frame(0, 1, stream, body.encode())

    @staticmethod
    def reset(stream: int) -> bytes:
        return frame(3, 0, stream, (8).to_bytes(4, "big"))

    @staticmethod
    def frames(answer: str) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame that came back."""
        data, found = answer.encode("latin-1"), []
        while len(data) >= 9:
            size = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:9 + size]))
            data = data[9 + size:]
        return found


@pytest.fixture
def http2() -> type[Http2]:
    return Http2
