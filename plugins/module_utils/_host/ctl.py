# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a host: `fastapictl`, for root, and `fastapi-deploy`, for the deploy user."""

# Programs of the host: there is no module around them.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import argparse
import os
import re
import socket
import sys

from . import kit
from .cutover import failure_text
from .deploy import Deploy
from .files import apps, is_app, no_app
from .info import overview
from .lock import BREAK
from .order import AGAIN
from .redact import redact_url
from .release import ReleaseError
from .rollback import CURRENT, Rollback
from .run import run_command
from .text import safe
from .tidy import Tidy

DONE, FAILED, USAGE, REFUSED, LOCKED = range(5)
CODES = (
    "Exit codes: 0 done, or nothing to do. 1 it failed, and users have the release that they had. 2 wrong usage. "
    "3 this command cannot do it on this host. 4 another run holds the lock of the app."
)
APP, VERSION = r"[a-z][a-z0-9-]{0,30}", r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}"
PROGRAM = "/usr/local/sbin/fastapi-deploy"
# What a key of the deploy user may ask for: as in the rule of sudo, with or without the words that call the program.
ASKED = re.compile(rf"(?:(?:sudo (?:-n )?)?(?:/usr/local/sbin/)?fastapi-deploy )?({APP}) ({VERSION})")
FROM_SSH = "--from-ssh"
DEPLOY_USAGE = """usage: fastapi-deploy APP VERSION

Releases another version of an app, with the settings of the last run of Ansible.
VERSION is a tag, a commit or a branch of the app's repository.
By SSH: ssh USER@HOST APP VERSION
"""


class Refused(Exception):
    """Why this command cannot do it, and who can."""


def by():
    return os.environ.get("SUDO_USER") or "root"


# -- deploy -----------------------------------------------------------------------------------------------------------


def settings_for(app, version, who, reason="", again=False, lock_wait=0, kept=kit.KIT, **flags):
    """Parameters for a release of this version, or Refused."""
    if not os.path.isdir(kept):
        raise Refused(
            "this host keeps no settings of its apps: they are kept where there is a deploy user "
            "(hardening_deploy_user.name). Deploy with Ansible: ansible-playbook daoman.fastapi.deploy"
        )
    settings, damaged = kit.load(app, kept)
    if damaged:
        path = os.path.join(kept, app + ".json")
        raise Refused(
            f"the settings of {app} in {path} do not fit: {damaged}. Run daoman.fastapi.site once: it saves them again"
        )
    if settings is None:
        raise Refused(f"{app} was not released by Ansible since this host keeps settings. Run daoman.fastapi.site once")
    if settings.get("kit") != kit.VERSION:
        raise Refused(
            f"the settings of {app} were kept by another version of the collection. Run daoman.fastapi.site once"
        )
    if settings["source_type"] != "git":
        raise Refused(
            f"{app} comes from a {settings['source_type']} ({redact_url(settings['source'])}), which has no other "
            "versions here: only Ansible can bring one. This command is for apps from git"
        )
    tasks = {point: files for point, files in settings.get("task_files", {}).items() if files}
    if tasks:
        named = ", ".join(f"{file} ({point})" for point, files in sorted(tasks.items()) for file in files)
        raise Refused(f"{app} has hooks that are files of tasks, which only Ansible can run: {named}")
    host = socket.gethostname()
    return {
        **settings,
        "version": version,
        "who": f"{who}@{host}",
        "run": f"{host} {os.getpid()} deploy-user",
        "reason": reason or f"deploy of {version} by {who}",
        "until": "done",
        "migrate": True,
        "release_again": again,
        "lock_wait": lock_wait,
        **{name: flags.get(name, False) for name in ("break_lock", "forget_secrets", "rebuild")},
        "release": "",
        "previous": "",
        "upload": "",
        "source_digest": "",
    }


def deploy(app, version, who, **options):
    """Release a version; the exit code."""
    settings = settings_for(app, version, who, **options)

    def make():
        work = Deploy(settings, run_command)
        work.on_wait = lambda text: print(safe(text), file=sys.stderr, flush=True)
        return work

    return carry_out(make)


def rollback(app, release, who, **options):
    if not is_app(app):
        raise Refused(no_app(app).rstrip("."))
    params = {"name": app, "release": release, "env": "", "forget_secrets": False, **options}
    params["who"] = f"{who}@{socket.gethostname()}"
    return carry_out(lambda: Rollback(params, run_command))


def tidy(app, **common):
    """Set aside what does not fit; the exit code."""
    if not is_app(app):
        raise Refused(f"there is no app '{app}' on this host")
    params = {"name": app, **common, "who": f"{common['who']}@{socket.gethostname()}"}
    return carry_out(lambda: Tidy(params, run_command))


def carry_out(make):
    """Do the work; tell on the standard output what serves, on the other what was noticed or failed."""
    failure = None
    try:
        work = make()
    except ReleaseError as exc:
        raise Refused(exc.message.rstrip(".")) from exc
    except (KeyError, TypeError) as exc:
        raise Refused(f"the settings do not fit the code on this host ({exc}). Run daoman.fastapi.site once") from exc
    try:
        work.run()
    except ReleaseError as exc:
        failure = exc
    for warning in work.cutover.warnings:
        print(f"warning: {as_options(safe(warning))}", file=sys.stderr)
    if failure:
        text = failure_text(work.layout, failure, work.cutover.secrets)
        print(as_options(safe(text)), file=sys.stderr)
        return LOCKED if failure.phase == "lock" else FAILED
    result = work.result
    done = "changed" if result["changed"] else "unchanged"
    print(f"{done}: {work.layout.name} serves release {result['release']} of {result['version']}")
    return DONE


def as_options(text):
    """Messages name what a playbook takes; this is what the command takes."""
    text = text.replace(BREAK, "To end it and go on with this run, give --break-lock.")
    return text.replace(AGAIN, "--again").replace(CURRENT, "--env current")


# -- fastapictl -------------------------------------------------------------------------------------------------------


def parser():
    top = argparse.ArgumentParser(
        prog="fastapictl", description="Releases of the apps on this host.", epilog=CODES, allow_abbrev=False
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, text):
        made = commands.add_parser(name, help=text, description=text, epilog=CODES, allow_abbrev=False)
        made.add_argument("app", metavar="APP", type=word(APP), nargs="?" if name == "releases" else None)
        return made

    def forgetting(made):
        made.add_argument(
            "--forget-secrets", action="store_true", help="remove the releases whose environment is not that of today"
        )

    def changing(made):
        made.add_argument("--reason", default="", metavar="TEXT", help="why, for the history")
        made.add_argument("--break-lock", action="store_true", help="end the run that holds the lock of the app")

    made = command(
        "deploy", "Release another version of an app from git, with the settings of the last run of Ansible."
    )
    made.add_argument("version", metavar="VERSION", type=word(VERSION), help="a tag, a commit or a branch")
    made.add_argument("--again", action="store_true", help="also if it is held because users were sent back from it")
    made.add_argument("--rebuild", action="store_true", help="rebuild the release, also if it exists")
    forgetting(made)
    changing(made)
    made.add_argument(
        "--lock-wait", type=int, default=0, metavar="SECONDS", help="wait for another run that holds the lock"
    )
    made = command("rollback", "Send users back to an earlier release that is still on this host.")
    made.add_argument(
        "release",
        metavar="RELEASE",
        nargs="?",
        default="",
        help="its id or a part of it, its version, or the beginning of its commit; the one that served before",
    )
    made.add_argument(
        "--env", default="", choices=["current"], help="start it with the environment of today and not with its own"
    )
    forgetting(made)
    changing(made)
    changing(command("tidy", "Set aside state files and lines of the history of an app that are damaged."))
    command("releases", "List the releases of one app, or of all, where a rollback goes, what is held, and locks.")
    return top


def word(pattern):
    def checked(text):
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} does not match {pattern}")
        return text

    return checked


def main(arguments=None):
    """The program fastapictl."""
    options = parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("fastapictl: run it as root", file=sys.stderr)
        return REFUSED
    return guarded("fastapictl", lambda: run(options))


def run(options):
    if options.command == "releases":
        if options.app and not is_app(options.app):
            raise Refused(no_app(options.app).rstrip("."))
        print("\n".join(overview([options.app] if options.app else apps())["lines"]))
        return DONE
    common = {"who": by(), "reason": options.reason, "break_lock": options.break_lock}
    if options.command == "deploy":
        more = {name: getattr(options, name) for name in ("again", "rebuild", "forget_secrets", "lock_wait")}
        return deploy(options.app, options.version, **common, **more)
    if options.command == "tidy":
        return tidy(options.app, **common)
    more = {"env": options.env, "forget_secrets": options.forget_secrets}
    return rollback(options.app, options.release, **common, **more)


def guarded(program, work):
    """The exit code of the work, which runs with root's plain surroundings."""
    os.umask(0o022)
    os.chdir("/")
    for stream in (sys.stdout, sys.stderr):
        # A terminal of a few characters is no reason to fail.
        stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except Refused as refused:
        print(f"{program}: {refused}.", file=sys.stderr)
        return REFUSED


# -- fastapi-deploy ---------------------------------------------------------------------------------------------------


def asked(command):
    """App and version of a command that came by SSH, or None. No shell sees it."""
    match = ASKED.fullmatch(command.strip(" "))
    return match.groups() if match else None


def deploy_user(arguments):
    """The program fastapi-deploy: by sudo with two words, or as the command that a key is held to."""
    if arguments == [FROM_SSH]:
        words = asked(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        if words:
            # Two words of a known form, and a path of root's: sudo looks at them once more.
            os.execve("/usr/bin/sudo", ["sudo", "-n", PROGRAM, *words], {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    elif len(arguments) == 2 and re.fullmatch(APP, arguments[0]) and re.fullmatch(VERSION, arguments[1]):
        if os.geteuid() != 0:
            print("fastapi-deploy: run it by sudo", file=sys.stderr)
            return REFUSED
        return guarded("fastapi-deploy", lambda: deploy(*arguments, by()))
    print(DEPLOY_USAGE, end="", file=sys.stderr)
    return USAGE
