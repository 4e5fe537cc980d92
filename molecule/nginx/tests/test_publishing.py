"""What nginx serves of an app's directories while the app, which can write in some of them, lays out links."""

from __future__ import annotations

import shlex
import time

import pytest

SHOP = "https://shop.example.com"
MEDIA = "/srv/alpha/shared/media"
HASHED = "x.27e20196a850.txt"


@pytest.fixture
def alpha(nginx):
    """A shell as the app's user, in its directory of shared paths, which is as it was afterwards."""
    def shell(command: str) -> str:
        return nginx.host.check_output(f"runuser -u alpha -- sh -euc {shlex.quote(f'cd /srv/alpha/shared; {command}')}")

    yield shell
    shell("if [ -d media.kept ]; then rm -rf media; mv media.kept media; fi; find media -mindepth 1 -delete;"
          " echo public > media/file.txt")


def refused(response) -> bool:
    return response.status in (403, 404) and "secret" not in response.text


def test_what_an_app_keeps_is_served(nginx, alpha):
    alpha("mkdir -p media/deep/er && echo public > media/deep/er/file.txt")
    for path in ("file.txt", "deep/er/file.txt"):
        response = nginx.ask(f"{SHOP}/media/{path}")
        assert (response.status, response.text) == (200, "public\n")


@pytest.mark.either_host
@pytest.mark.parametrize("path, link", [
    ("x.txt", "ln -s /srv/beta/secret.txt media/x.txt"),
    ("x.txt", "ln -s ../../../beta/secret.txt media/x.txt"),
    ("x.txt", "ln -s /proc/self/environ media/x.txt"),
    ("x/secret.txt", "ln -s /srv/beta media/x"),
    ("x/y/secret.txt", "mkdir media/x; ln -s /srv/beta media/x/y"),
    ("x/beta/secret.txt", "ln -s /srv media/x"),
    ("y.txt", "ln -s /srv/beta/secret.txt media/x; ln -s x media/y.txt"),
    (HASHED, f"ln -s /srv/beta/secret.txt media/{HASHED}"),
    (f"x/{HASHED}", "ln -s /srv/beta media/x"),
    ("inside.txt", "ln -s file.txt media/inside.txt"),
])
def test_no_link_is_followed(nginx, alpha, path, link):
    """Not even one that stays inside: what is behind it may be another thing a moment later."""
    alpha(link)
    assert refused(nginx.ask(f"{SHOP}/media/{path}"))


@pytest.mark.parametrize("suffix, encoding", [("gz", "gzip"), ("br", "br")])
def test_no_link_is_followed_to_a_compressed_file(nginx, alpha, suffix, encoding):
    alpha(f"echo plain > media/x.txt; ln -s /srv/beta/secret.txt media/x.txt.{suffix}")
    response = nginx.ask(f"{SHOP}/media/x.txt", "--header", f"Accept-Encoding: {encoding}", "--raw")
    assert "secret" not in response.text


@pytest.mark.either_host
@pytest.mark.parametrize("swap", [
    "mv media media.kept; ln -s /srv/beta media",
    "mv media media.kept; ln -s /srv media; cd media",
    "mv media media.kept; mkdir media; ln -s /srv/beta/secret.txt media/secret.txt",
])
def test_the_published_directory_itself_cannot_become_a_link(nginx, alpha, swap):
    alpha(swap)
    for path in ("secret.txt", "beta/secret.txt", "secret.27e20196a850.txt"):
        assert refused(nginx.ask(f"{SHOP}/media/{path}"))


@pytest.mark.either_host
def test_a_file_that_nginx_has_open_is_not_exchanged_for_a_link(nginx, alpha):
    """Its descriptor is kept for 10 s: what it then serves is what was public, never what is behind the link."""
    alpha(f"echo public > media/{HASHED}")
    url = f"{SHOP}/media/{HASHED}"
    assert [nginx.ask(url).text for _ in range(3)] == ["public\n"] * 3
    alpha(f"ln -sf /srv/beta/secret.txt media/{HASHED}")
    seen, left = set(), [None]
    deadline = time.monotonic() + 20
    while left and time.monotonic() < deadline:
        # Each worker of nginx has descriptors of its own.
        left = [answer.text for answer in (nginx.ask(url) for _ in range(8)) if not refused(answer)]
        seen.update(left)
        time.sleep(0.5)
    assert not left and seen <= {"public\n"}


RACE = """
import http.client, os, socket, ssl, threading
os.chdir('/srv/alpha/shared/media')
os.mkdir('x')
names = ('secret.txt', 'secret.27e20196a850.txt')
for name in names:
    open('x/' + name, 'w').write('public')
os.symlink('/srv/beta', 'evil')
done = False
def swap():
    while not done:
        for old, new in (('x', 'good'), ('evil', 'x'), ('x', 'evil'), ('good', 'x')):
            os.rename(old, new)
swapper = threading.Thread(target=swap)
swapper.start()
found = {}
connection = http.client.HTTPConnection('shop.example.com')
connection.sock = ssl._create_unverified_context().wrap_socket(
    socket.create_connection(('127.0.0.1', 443)), server_hostname='shop.example.com')
try:
    for number in range(900):
        connection.request('GET', '/media/x/' + names[number % 2])
        response = connection.getresponse()
        text = response.read().decode().strip() if response.status == 200 else str(response.read() and response.status)
        found[text] = found.get(text, 0) + 1
finally:
    done = True
    swapper.join()
print(found)
"""


def test_a_directory_that_is_swapped_while_nginx_looks_at_it_does_not_let_it_out(nginx, alpha, measured):
    found = alpha(f"python3 -c {shlex.quote(RACE)}")
    measured(f"answers while directory and link were exchanged: {found}")
    assert "secret" not in found and "public" in found


def test_files_of_releases_are_served_and_their_links_are_not(nginx):
    """Of a release nothing changes later. What an older version of this collection released is held to it as well."""
    for url in ("/assets/now.txt", "/assets/now.3f2a9c1b.css"):
        assert nginx.ask(SHOP + url).text == "now\n"
    assert nginx.ask(f"{SHOP}/assets/before.3f2a9c1b.css").text == "before\n"
    for url in ("/assets/link.txt", "/assets/link.3f2a9c1b.css", "/assets/old.3f2a9c1b.css", "/assets/dir/secret.txt"):
        assert refused(nginx.ask(SHOP + url))


def test_elsewhere_links_are_followed_whose_owner_owns_what_they_lead_to(nginx):
    """root's to root's files, as in /usr/share/javascript; not those of who can only write there."""
    nginx.host.check_output(
        "cd /srv/files/static && ln -sfn css linked && ln -sf css/site.css linked.css"
        " && mkdir -p theirs && chown alpha theirs && cd theirs"
        " && runuser -u alpha -- ln -sf /srv/beta/secret.txt x.txt && runuser -u alpha -- ln -sfn /srv/beta y")
    try:
        for path in ("linked/site.css", "linked.css"):
            assert nginx.ask(f"{SHOP}/static/{path}").text == "body {}\n"
        assert refused(nginx.ask(f"{SHOP}/static/theirs/x.txt"))
        assert refused(nginx.ask(f"{SHOP}/static/theirs/y/secret.txt"))
    finally:
        nginx.host.check_output("cd /srv/files/static && rm -rf linked linked.css theirs")
