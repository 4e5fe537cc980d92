"""What the app answers."""

import hashlib
import tempfile
from uuid import UUID

import pytest
from starlette.websockets import WebSocketDisconnect


def test_index_and_its_static_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for name, content_type in {
        "style.css": "text/css",
        "logo.svg": "image/svg+xml",
        "app.js": "text/javascript",
    }.items():
        assert f"/static/{name}" in page.text
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(content_type)


def test_static_files_do_not_lead_outside(client):
    assert client.get("/static/%2e%2e/main.py").status_code == 404


def test_whoami(make_client):
    me = make_client(version="1.2.3").get("/whoami", headers={"X-Request-ID": "request-0001"}).json()
    assert me["client"] == "testclient"
    assert me["scheme"] == "http"
    assert me["host"] == "testserver"
    assert me["request_id"] == "request-0001"
    assert me["version"] == "1.2.3"


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", ""])
def test_forged_host_is_refused_with_a_request_id(client, host):
    answer = client.get("/whoami", headers={"Host": host})
    assert answer.status_code == 400
    assert len(answer.headers["x-request-id"]) == 32


def test_forged_host_is_refused_on_a_websocket(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers={"Host": "evil.example"}):
        pass


def test_well_formed_request_id_is_kept(client):
    answer = client.get("/whoami", headers={"X-Request-ID": "0af7651916cd43dd8448eb211c80319c"})
    assert answer.headers.get_list("x-request-id") == ["0af7651916cd43dd8448eb211c80319c"]


@pytest.mark.parametrize("forged", ["short", "x" * 129, "with space 1234", 'quote"12345678', "line\tbreak1234", ""])
def test_malformed_request_id_is_replaced(client, forged):
    answer = client.get("/whoami", headers={"X-Request-ID": forged})
    assert UUID(answer.headers["x-request-id"]).version == 4
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("seconds", ["-1", "30.1", "nan", "inf", "long"])
def test_slow_is_bounded(client, seconds):
    assert client.get("/slow", params={"seconds": seconds}).status_code == 422


def test_slow_within_its_bounds(client):
    answer = client.get("/slow", params={"seconds": "0.01"})
    assert answer.json() == {"slept": 0.01}
    assert answer.elapsed.total_seconds() >= 0.01


def test_echo_returns_the_bytes_but_never_as_a_page(client):
    answer = client.post("/echo", content=b"<script>\0\xff", headers={"Content-Type": "text/html"})
    assert answer.content == b"<script>\0\xff"
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_upload(client, size):
    content = b"a" * size
    answer = client.post("/upload", files={"file": ("a.bin", content)})
    assert answer.json() == {"filename": "a.bin", "size": size, "sha256": hashlib.sha256(content).hexdigest()}


def test_large_uploads_go_to_the_temporary_directory(client, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert client.post("/upload", files={"file": b"a" * 1000}).status_code == 200
    answer = client.post("/upload", files={"file": b"a" * 3_000_000})
    assert answer.status_code == 400  # FastAPI's answer to any failure while it reads a form


def test_upload_without_a_file(client):
    assert client.post("/upload").status_code == 422


def test_api_documentation_only_when_asked_for(make_client):
    client = make_client()
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]
    assert make_client(docs=True).get("/openapi.json").status_code == 200


def test_websocket_echo(client):
    with client.websocket_connect("/ws") as socket:
        for text in ("one", "two", "ü" * 10_000):
            socket.send_text(text)
            assert socket.receive_text() == text
