"""What root takes over of an untrusted tree, and what it refuses."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.tree import Modes, Refused, reader, take_over

ME = (os.getuid(), os.getgid())


@pytest.fixture
def top(tmp_path):
    top = tmp_path / "src"
    (top / "app/static/img").mkdir(parents=True)
    (top / "app/main.py").write_text("x")
    (top / "app/run").write_text("x")
    (top / "app/run").chmod(0o777)
    (top / "app/static/a.css").write_text("x")
    (top / "app/static/a.css").chmod(0o600)
    (tmp_path / "outside").mkdir(mode=0o755)
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "outside/secret").chmod(0o600)
    return top


def taken(top, *published, passed=()):
    take_over(str(top), ME[0], Modes(*ME), published, passed)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_code_is_closed_and_what_is_published_is_open(top):
    taken(top, "app/static")
    assert [mode(top / path) for path in ("app/main.py", "app/run")] == [0o640, 0o750]
    assert [mode(top / path) for path in ("app/static", "app/static/img", "app/static/a.css")] == [0o755, 0o755, 0o644]
    assert [mode(path) for path in (top, top / "app")] == [0o751, 0o751], "nginx passes through, and lists nothing"


def test_without_anything_published_nobody_passes(top):
    taken(top)
    assert [mode(path) for path in (top, top / "app", top / "app/static")] == [0o750] * 3


def test_the_parents_of_a_shared_path_are_passable(top):
    taken(top, passed=["app/media"])
    assert [mode(path) for path in (top, top / "app", top / "app/static")] == [0o751, 0o751, 0o750]


@pytest.mark.parametrize("target", ["../../outside", "../../outside/secret", "/etc/shadow", "nothing", "main.py"])
def test_links_elsewhere_are_kept_and_not_followed(top, target):
    os.symlink(target, top / "app/link")
    before = [mode(top.parent / path) for path in ("outside", "outside/secret")]
    taken(top, "app/static")
    assert os.readlink(top / "app/link") == target
    assert [mode(top.parent / path) for path in ("outside", "outside/secret")] == before


@pytest.mark.parametrize(
    "target", ["../main.py", "../../../outside/secret", "/etc/passwd", "img/../../main.py", "deep", "loop", "absolute"]
)
def test_a_link_out_of_a_published_directory_is_refused(top, target):
    static = top / "app/static"
    os.symlink("..", static / "img/up")
    os.symlink("img/up/../main.py", static / "deep")  # inside by its look, and out through the other link
    os.symlink("loop", static / "loop")
    os.symlink(static, static / "absolute")
    os.symlink(target, static / "link")
    for name in {"deep", "loop", "absolute"} - {target}:
        (static / name).unlink()
    with pytest.raises(ReleaseError, match=r"the link 'app/static/.*' in the static directory 'app/static' leads out"):
        taken(top, "app/static")


@pytest.mark.parametrize("target", ["a.css", "img/../a.css", "img", "./img", "gone", "inner/a.css"])
def test_a_link_that_stays_in_a_published_directory_is_kept(top, target):
    os.symlink("..", top / "app/static/img/inner")
    os.symlink(target, top / "app/static/link")
    links = take_over(str(top), ME[0], Modes(*ME), ["app/static"])
    assert os.readlink(top / "app/static/link") == target
    assert links == ["app/static/img/inner", "app/static/link"], "nginx follows none of them by itself"


@pytest.mark.parametrize("target", ["../outside", "app", "/etc"])
def test_a_published_directory_that_is_a_link_is_refused(top, target):
    os.symlink(target, top / "static")
    before = mode(top.parent / "outside")
    for path in ("static", "static/img"):
        with pytest.raises(ReleaseError, match="may not be a link"):
            taken(top, path)
    assert mode(top.parent / "outside") == before


@pytest.mark.parametrize("published", ["missing", "app/main.py", "../outside", "app/../../outside"])
def test_a_published_directory_is_a_directory_of_the_source(top, published):
    with pytest.raises(ReleaseError, match="is not a directory of the source"):
        taken(top, published)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(os.path.dirname(path))
        listener.bind(os.path.basename(path))


@pytest.mark.parametrize(
    "make, what",
    [
        (os.mkfifo, "a fifo"),
        (make_socket, "a socket"),
        pytest.param(
            lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
            "a character device",
            marks=pytest.mark.skipif(ME[0] != 0, reason="only root makes devices"),
        ),
    ],
)
def test_what_is_no_file_is_refused(top, monkeypatch, make, what):
    monkeypatch.chdir(top)
    make(str(top / "app/static/odd"))
    with pytest.raises(Refused, match=f"'app/static/odd' of the release is {what}"):
        taken(top)


@pytest.mark.skipif(ME[0] != 0, reason="only root gives files away")
def test_what_somebody_else_owns_is_refused(top):
    builder = 54321
    for path in (top, *top.rglob("*")):
        os.lchown(path, builder, builder)
    os.lchown(top / "app/main.py", 54322, builder)
    with pytest.raises(Refused, match="owned by uid 54322, which did not build it"):
        take_over(str(top), builder, Modes(*ME))
    # Tasks of the user's own run as root.
    os.lchown(top / "app/main.py", 0, 0)
    take_over(str(top), builder, Modes(*ME))


@pytest.mark.skipif(ME[0] != 0, reason="root's own files are meant")
def test_a_second_name_of_a_file_of_root_is_refused(top):
    secret = top.parent / "outside/secret"
    os.link(secret, top / "app/link")
    with pytest.raises(Refused, match="owned by uid 0"):
        take_over(str(top), 54321, Modes(*ME))
    assert mode(secret) == 0o600


def test_a_tree_that_is_too_deep_is_refused(top):
    deep = top
    for _ in range(tree.DEEPEST + 1):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(Refused, match="nested deeper than"):
        taken(top)


def test_strange_names_are_shown_escaped(top):
    os.mkfifo(top / "a\nb\x1b[31m")
    with pytest.raises(Refused, match=r"'a\\nb\\x1b\[31m'"):
        taken(top)


def test_setuid_does_not_survive(top):
    (top / "app/run").chmod(0o6755)
    taken(top)
    assert mode(top / "app/run") == 0o750


def test_a_swap_while_root_walks_changes_nothing_outside(top):
    """Somebody swaps a directory for a link and back, as fast as possible, while the tree is taken over 300 times."""
    victim = top.parent / "outside"
    before = (mode(victim), mode(victim / "secret"))
    swap = (
        "import os, sys\n"
        "top, victim = sys.argv[1:]\n"
        "os.chdir(top)\n"
        "while True:\n"
        "    os.rename('img', 'aside'); os.symlink(victim, 'img'); os.unlink('img'); os.rename('aside', 'img')\n"
    )
    swapper = subprocess.Popen([sys.executable, "-c", swap, str(top / "app/static"), str(victim)])
    try:
        outcomes = set()
        for _ in range(300):
            try:
                taken(top)
                outcomes.add("taken")
            except (ReleaseError, FileNotFoundError):
                outcomes.add("refused")
    finally:
        swapper.kill()
        swapper.wait()
    assert outcomes, "never walked"
    assert (mode(victim), mode(victim / "secret")) == before


# -- reading and removing ---------------------------------------------------------------------------------------------


def test_a_file_is_read_through_links_that_stay_inside(top):
    (top / "requirements").mkdir()
    (top / "requirements/prod.txt").write_text("fastapi\n")
    os.symlink("../requirements/prod.txt", top / "app/requirements.txt")
    os.symlink("../../outside/secret", top / "app/uv.lock")
    os.symlink("/etc/passwd", top / "app/pylock.toml")
    os.mkfifo(top / "app/pyproject.toml")
    read = reader(str(top), "app")
    assert read("requirements.txt") == "fastapi\n"
    assert [read(name) for name in ("uv.lock", "pylock.toml", "pyproject.toml", "none")] == [None] * 4


def test_the_deepest_tree_is_removed(tmp_path):
    top = tmp_path / "deep"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path can be long, and than Python can recurse
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    os.symlink("/etc", top / "link")
    tree.remove(str(top))
    assert not top.exists() and os.path.isdir("/etc")
    tree.remove(str(top))


def test_root_puts_a_link_in_the_place_of_whatever_is_there(top):
    os.symlink(top.parent / "outside", top / "media")
    tree.replace_by_link(str(top), "media", "/srv/shop/shared/media")
    tree.replace_by_link(str(top), "app/static", "/srv/shop/shared/static")
    tree.replace_by_link(str(top), "new/deep/place", "/srv/shop/shared/x")
    assert os.readlink(top / "media") == "/srv/shop/shared/media" and (top.parent / "outside/secret").exists()
    assert os.readlink(top / "app/static") == "/srv/shop/shared/static"
    assert os.readlink(top / "new/deep/place") == "/srv/shop/shared/x"


def test_root_makes_no_link_behind_a_link(top):
    os.symlink(top.parent / "outside", top / "data")
    with pytest.raises(OSError):
        tree.replace_by_link(str(top), "data/x", "/srv/shop/shared/x")
    assert not os.path.lexists(top.parent / "outside/x")


# Holds a descriptor of a directory, which no mode of those above it closes, and adds files to it for ever.
ADD = """
import itertools, os, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for number in itertools.count():
    try:
        os.close(os.open(f"file{number}", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    except OSError as error:
        sys.exit(error.errno)
    if number == 5000:
        print(flush=True)
"""


@pytest.fixture
def added_to(tmp_path):
    """A tree to one of whose directories another process adds files."""
    top = tmp_path / "scratch"
    (top / "x").mkdir(parents=True)
    (top / "x").chmod(0o777)
    with subprocess.Popen([sys.executable, "-c", ADD, str(top / "x")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield top, process
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="one user cannot close a directory to itself")
def test_a_tree_that_another_user_adds_to_is_closed_and_removed(added_to):
    top, process = added_to
    tree.remove(str(top))
    assert not top.exists()
    assert process.wait() == errno.EACCES, "it was the faster one by chance only"


def test_a_removal_has_a_deadline(added_to, monkeypatch):
    monkeypatch.setattr(tree, "LONGEST_REMOVAL", 0.5)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    monkeypatch.setattr(os, "unlink", lambda *_, **__: None)
    with pytest.raises(ReleaseError, match=r"'scratch' is not gone within 0\.5 s"):
        tree.remove(str(added_to[0]))
