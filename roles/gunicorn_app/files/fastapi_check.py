# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an app may be imported before gunicorn forks its workers, and whether it can be imported at all.

With `preload_app` the master imports the app once, and all workers share what the import left open. On a connection to
a database they then read each other's answers: requests get rows of other users, with status 200. A thread does not
survive the fork, and what it should do is never done. So an app is preloaded only if its import leaves nothing of the
kind.

As a program this is the check of a release, in place of `gunicorn --check-config`: it imports the app as gunicorn
would, and writes what it found. `gunicorn.conf.py` uses `preload()`, which reads what became of the check, and looks
again when the master has imported the app: a database that could not be reached at the check may answer later.

What counts is what the kernel knows: descriptors, threads and child processes. Python is asked for names only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
import warnings

# The process that reads gunicorn.conf.py is the master; only there an import comes before the fork.
MASTER = os.getpid()
# How the master was started, to start it again.
ENVIRONMENT = dict(os.environ)
DIRECTORY = os.getcwd()
WITHOUT = "FASTAPI_WITHOUT_PRELOAD"
MOST_FINDINGS = 20
LONGEST = 200
# Seconds that a thread has to end, and a trial fork to return.
SETTLE = 0.2
FORK = 10
HARMLESS_DEVICES = frozenset("/dev/" + name for name in ("null", "zero", "full", "random", "urandom"))
O_PATH = 0o10000000
# The order in which kinds are named.
RANKS = ("connection", "listener", "device", "process", "thread", "lock", "file", "loop", "watch", "timer", "open")
KERNEL_OBJECTS = {
    "eventpoll": ("loop", "made an event loop or a selector"),
    "io_uring": ("loop", "made an event loop or a selector"),
    "inotify": ("watch", "watches files (inotify)"),
    "fanotify": ("watch", "watches files (fanotify)"),
}
# Set by the check, which only looks.
checking = False


def preload(setting, path, unsafe=False):
    """The value of gunicorn's `preload_app`. Without a result of the check it is False, which is always right."""
    if not unsafe:
        guard()
    if WITHOUT in os.environ:
        return False
    if setting != "auto":
        return setting == "true"
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)["preload"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def guard():
    """Have gunicorn look at what an import leaves open before a fork, whoever has set `preload_app`."""
    from gunicorn import util

    import_app = util.import_app

    def guarded(app):
        if checking or os.getpid() != MASTER:
            return import_app(app)
        before = scan()
        loaded = import_app(app)
        found = findings(before)
        if found:
            start_again(app, found)
        return loaded

    util.import_app = guarded


def start_again(app, found):
    """Replace this master by one without preload. systemd's sockets and this process' id stay."""
    facts = "; ".join(what for _rank, what, _key in found[:3])
    if WITHOUT in os.environ:
        sys.exit(f"gunicorn.extra or GUNICORN_CMD_ARGS sets preload_app, but the import of '{app}' {facts}.")
    logging.getLogger("gunicorn.error").warning("Starts again without preload: the import of '%s' %s", app, facts)
    for _rank, _what, key in found:
        with contextlib.suppress(OSError):
            if key[0] == "fd":
                os.set_inheritable(key[1], False)
            elif key[0] == "process":
                os.kill(key[1], signal.SIGTERM)
    os.chdir(DIRECTORY)
    os.execve(sys.executable, sys.orig_argv, {**ENVIRONMENT, WITHOUT: "1"})


# what is there


def scan():
    """What this process has that a fork shares or loses, as the kernel knows it: a set of keys."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of this very listing
            found.add(("fd", int(name), os.readlink("/proc/self/fd/" + name)))
    for name in os.listdir("/proc/self/task"):
        found.add(("thread", int(name)))
        with contextlib.suppress(OSError), open(f"/proc/self/task/{name}/children", encoding="ascii") as stream:
            found.update(("process", int(pid)) for pid in stream.read().split())
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        if signal.getitimer(which)[0]:
            found.add(("timer", int(which)))
    return found


def findings(before):
    """What is there now, was not before, and must not be there at a fork: [(rank, what, key)], the worst first."""
    new = scan() - before
    if native_threads(new):
        # OpenBLAS and others end their threads at a fork, and start them again when they are needed. Most do not.
        fork()
        deadline = time.monotonic() + SETTLE
        while native_threads(new := scan() - before) and time.monotonic() < deadline:
            time.sleep(0.01)
    mapped = mapped_files()
    told = []
    for key in new:
        with contextlib.suppress(OSError):  # closed meanwhile
            fact = describe(key, mapped)
            if fact:
                told.append((RANKS.index(fact[0]), printable(fact[1]), key))
    return sorted(told)


def native_threads(keys):
    known = {thread.native_id for thread in threading.enumerate()}
    return [key for key in keys if key[0] == "thread" and key[1] not in known]


def fork():
    """Fork as gunicorn will, with all that libraries have registered for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of a fork beside threads
        child = os.fork()
    if not child:
        os._exit(0)
    deadline = time.monotonic() + FORK
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)


def mapped_files():
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as stream:
        fields = [line.rstrip("\n").split(None, 5) for line in stream]
    return {field[5] for field in fields if len(field) == 6}


def describe(key, mapped):
    """Kind and words for what must not be shared, None for what may."""
    if key[0] == "fd":
        return describe_descriptor(key[1], key[2], mapped)
    if key[0] == "thread":
        return describe_thread(key[1])
    if key[0] == "process":
        return describe_process(key[1])
    return "timer", "set a timer (setitimer), which no worker inherits"


def describe_descriptor(number, target, mapped):
    kind, _colon, name = target.partition(":")
    if kind == "socket":
        return describe_socket(number)
    if kind == "pipe":
        return "open", "left a pipe open"
    if kind == "anon_inode":
        name = name.strip("[]").partition(":")[0]
        return KERNEL_OBJECTS.get(name, ("open", f"left a descriptor open ({name})"))
    mode = os.fstat(number).st_mode
    if stat.S_ISDIR(mode) or target in HARMLESS_DEVICES:
        return None
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "device", f"opened the device {target}"
    flags, locked = descriptor_flags(number)
    if flags & O_PATH:
        return None
    if locked:
        return "lock", f"locked the file {target}"
    if flags & os.O_ACCMODE == os.O_RDONLY:
        # Processes that read share one position; a file that is mapped is read without one.
        return None if target in mapped else ("file", f"opened the file {target}")
    # Lines that are appended to a log stay whole.
    return None if flags & os.O_APPEND else ("file", f"opened the file {target} for writing")


def descriptor_flags(number):
    flags, locked = 0, False
    with open(f"/proc/self/fdinfo/{number}", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("flags:"):
                flags = int(line.split()[1], 8)
            locked = locked or line.startswith("lock:")
    return flags, locked


def describe_socket(number):
    try:
        copy = socket.socket(fileno=os.dup(number))
    except OSError:
        return "open", "left a socket open"
    with copy:
        own, peer, kind = name_of(copy.getsockname), name_of(copy.getpeername), copy.type
        if copy.family == socket.AF_UNIX and kind == socket.SOCK_DGRAM and own == "" and peer != "":
            return None  # a log's or a statsd client's: without an address, nobody can answer to it
        with contextlib.suppress(OSError):
            if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "listener", f"listens on {own}"
    if peer:
        return "connection", f"opened a connection to {peer}"
    if peer == "":
        return "open", "left a pair of sockets open"
    return "open", "left a datagram socket open" if kind == socket.SOCK_DGRAM else "left a socket open"


def name_of(ask):
    """A socket's address in words; None where it has none, empty where the address has no name."""
    try:
        address = ask()
    except OSError:
        return None
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    if isinstance(address, bytes):
        return "@" + address[1:].decode("utf-8", "replace") if address else ""
    return str(address)


def describe_thread(number):
    for thread in threading.enumerate():
        if thread.native_id == number:
            target = getattr(thread, "_target", None) or type(thread).run
            function = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', type(target).__name__)}"
            return "thread", f"started the thread '{thread.name}' ({function})"
    with open(f"/proc/self/task/{number}/comm", encoding="utf-8", errors="replace") as stream:
        return "thread", f"started the native thread '{stream.read().strip()}'"


def describe_process(number):
    with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as stream:
        name, _paren, rest = stream.read().partition("(")[2].rpartition(")")
    return None if rest.split()[0] == "Z" else ("process", f"started the process '{name}'")


def printable(text):
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:LONGEST]


# the check


class Places:
    """Where in the project something was opened: the file, and the line where Python tells it."""

    def __init__(self, top, app):
        self.top = os.path.join(os.path.realpath(top), "")
        self.package = ""
        self.exact = {}
        self.modules = {}
        from importlib import machinery, util

        # An app that is installed has its files in its package.
        with contextlib.suppress(ImportError, ValueError, AttributeError):
            spec = util.find_spec(app.partition(":")[0].partition(".")[0])
            if spec.submodule_search_locations:
                self.package = os.path.join(os.path.realpath(next(iter(spec.submodule_search_locations))), "")
        execute = machinery.SourceFileLoader.exec_module

        def exec_module(loader, module):
            name = self.name(getattr(loader, "path", ""))
            if not name:
                return execute(loader, module)
            before = scan()
            try:
                return execute(loader, module)
            finally:
                for key in scan() - before:
                    self.modules.setdefault(key, name)

        machinery.SourceFileLoader.exec_module = exec_module
        sys.addaudithook(self.hear)

    def hear(self, event, args):
        with contextlib.suppress(Exception):  # it would be the app's
            if event in ("socket.connect", "socket.bind"):
                self.exact["socket", os.fstat(args[0].fileno()).st_ino] = self.line()
            elif event in ("_thread.start_new_thread", "_thread.start_joinable_thread"):
                self.exact["thread", id(args[0].__self__)] = self.line()
            elif event in ("open", "sqlite3.connect") and not str(args[0]).endswith((".py", ".pyc")):
                self.exact["file", os.path.abspath(args[0])] = self.line()

    def line(self):
        frame = sys._getframe(2)
        while frame:
            name = self.name(frame.f_code.co_filename)
            if name:
                return f"{name} line {frame.f_lineno}"
            frame = frame.f_back
        return ""

    def name(self, path):
        """A file of the project as its people know it; empty for files of others."""
        if path.startswith(self.top) and "/site-packages/" not in path:
            return path[len(self.top) :]
        if self.package and path.startswith(self.package):
            return path[len(os.path.dirname(self.package[:-1])) + 1 :]
        return ""

    def of(self, key):
        exact = None
        if key[0] == "fd" and key[2].startswith("socket:"):
            exact = "socket", int(key[2][len("socket:[") : -1])
        elif key[0] == "fd":
            exact = "file", key[2]
        elif key[0] == "thread":
            exact = "thread", next((id(item) for item in threading.enumerate() if item.native_id == key[1]), 0)
        return self.exact.get(exact) or self.modules.get(key, "")


def check(config, result):
    """Import the app as gunicorn would before its first fork, and write what was found; the exit code."""
    from gunicorn.app.wsgiapp import WSGIApplication
    from gunicorn.arbiter import Arbiter

    class Application(WSGIApplication):
        found = ()

        def load(self):
            self.found = told("configuration", before)
            places = Places(self.cfg.chdir, self.app_uri)
            now = scan()
            app = super().load()
            refuse_factory(app, self.app_uri)
            self.found += told("import", now, places)
            return app

    application = None
    # python -m gunicorn, which this stands for, looks for modules where it is started.
    sys.path[0] = os.getcwd()
    sys.argv = ["gunicorn", "--config", config]
    before = scan()
    try:
        application = Application("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn")
        application.cfg.set("preload_app", True)
        Arbiter(application)
        found = application.found
        code, document = 0, {"loaded": True, "findings": found[:MOST_FINDINGS], "more": len(found[MOST_FINDINGS:])}
    except BaseException as error:
        text = printable(explain(error, application))
        print(text, file=sys.__stderr__, flush=True)
        code, document = 1, {"loaded": False, "error": text}
    if os.getpid() == MASTER:  # and not a process that the app has forked
        write(result, document)
    return code


def told(stage, before, places=None):
    facts = [(places.of(key) if places else "", what) for _rank, what, key in findings(before)]
    # A loop has many descriptors, a pool many connections.
    return [{"stage": stage, "where": printable(where), "what": what} for where, what in dict.fromkeys(facts)]


def refuse_factory(app, name):
    """A function that takes nothing cannot be an application, and would fail at the first request only."""
    from gunicorn.errors import AppImportError

    code = getattr(app, "__code__", None)
    if code is not None and not code.co_argcount + code.co_kwonlyargcount and not code.co_flags & 0x0C:
        raise AppImportError(f"'{name}' is a function without parameters. If it makes the app, write '{name}()'")


def explain(error, application):
    """Print the app's own traceback; one line that says what is wrong."""
    import traceback

    from gunicorn.errors import AppImportError

    if application is None:
        if not isinstance(error, SystemExit):  # or gunicorn has shown it
            traceback.print_exception(error, file=sys.__stderr__)
        return "gunicorn.conf.py cannot be read: see gunicorn.extra"
    name = application.app_uri
    if isinstance(error, AppImportError):
        return f"app: {error}"
    place = error.__traceback__
    while place and is_machinery(place.tb_frame.f_code.co_filename):
        place = place.tb_next
    traceback.print_exception(type(error), error, place, file=sys.__stderr__)
    if isinstance(error, SystemExit):
        return f"app: '{name}' ends the process when it is imported: sys.exit({error.code!r})"
    module = name.partition(":")[0]
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return f"app: '{name}' cannot be imported: {error}"
    text = str(error).strip().partition("\n")[0]
    return f"app: '{name}' cannot be imported: {type(error).__name__}" + (f": {text}" if text else "")


def is_machinery(path):
    import importlib

    import gunicorn

    return path.startswith(
        (__file__, os.path.dirname(gunicorn.__file__), os.path.dirname(importlib.__file__), "<frozen importlib")
    )


def write(path, document):
    with open(path, "w", encoding="ascii") as stream:
        json.dump({"format": 1, **document}, stream)


def main():
    import argparse
    import faulthandler

    global checking
    parser = argparse.ArgumentParser(description="Imports an app as gunicorn would, and tells what that leaves open.")
    parser.add_argument("--config", required=True, help="gunicorn.conf.py of the release")
    parser.add_argument("--result", required=True, help="file for the result, as JSON")
    parser.add_argument("--timeout", type=float, default=0, help="seconds after which it ends and shows where it was")
    arguments = parser.parse_args()
    checking = True
    result = os.path.abspath(arguments.result)
    limit = f" within {arguments.timeout:g} s" if arguments.timeout else ""
    # What holds if the process ends before it can tell more.
    text = f"the import of the app does not come to its end{limit}: it waits, or it ends the process. See the output"
    write(result, {"loaded": False, "error": text})
    if arguments.timeout:
        faulthandler.dump_traceback_later(arguments.timeout, exit=True, file=sys.__stderr__)
    code = check(arguments.config, result)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # Threads that the app has started do not hold this up.
    os._exit(code)


if __name__ == "__main__":
    # gunicorn.conf.py imports this module by its name, and there is to be one of it.
    import fastapi_check

    fastapi_check.main()
