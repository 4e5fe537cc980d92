# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs commands without Ansible: for what runs on the host by itself."""

# What stands in for AnsibleModule.run_command where there is no module.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import namedtuple

from .release import ReleaseError

Result = namedtuple("Result", "code out err")


def run_command(
    argv,
    check_rc=False,
    data=None,
    cwd=None,
    environ_update=None,
    umask=None,
    errors="surrogateescape",
    expand_user_and_vars=False,
    pass_fds=(),
):
    """Exit code, output and errors of a command, as AnsibleModule.run_command returns them.

    Its words are taken as they are; ReleaseError stands for what AnsibleModule fails with.
    """
    if isinstance(argv, str) or expand_user_and_vars:
        raise ValueError("a command is a list of words, which are taken as they are")
    try:
        done = subprocess.run(
            argv,
            input=data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
            cwd=cwd,
            env={**os.environ, **(environ_update or {})},
            umask=-1 if umask is None else umask,
            pass_fds=pass_fds,
        )
    except OSError as exc:
        raise ReleaseError("run", f"cannot run {argv[0]}: {exc.strerror}") from exc
    # These are names of Ansible's own; for decoding they mean this.
    errors = "surrogateescape" if errors in {"surrogate_then_replace", "surrogate_or_strict"} else errors
    out, err = done.stdout.decode("utf-8", errors), done.stderr.decode("utf-8", errors)
    if check_rc and done.returncode:
        raise ReleaseError("run", f"{' '.join(argv[:3])} ended with {done.returncode}", out + err)
    return done.returncode, out, err


def run_bounded(argv, timeout, most, env):
    """Result of a command that may say too much or not end: 124 after `timeout` seconds, 127 where it is not there.

    Of its output the first `most` bytes are kept; then it is ended, with all that it started.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        return Result(127, "", str(error))
    deadline = time.monotonic() + timeout
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    late = enough = False
    with process, selectors.DefaultSelector() as selector:
        for stream in kept:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not late and not enough:
            for key, _events in selector.select(max(deadline - time.monotonic(), 0)):
                part = os.read(key.fd, 1 << 16)
                kept[key.fileobj] += part
                if not part:
                    selector.unregister(key.fileobj)
            late = time.monotonic() >= deadline
            enough = any(len(text) >= most for text in kept.values())
        if not late and not enough:
            try:
                process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                late = True
        if late or enough:
            os.killpg(process.pid, signal.SIGKILL)
    if late:
        return Result(124, "", f"{argv[0]} took more than {timeout} s")
    out, err = (bytes(text[:most]).decode("utf-8", "replace") for text in kept.values())
    return Result(0 if enough else process.returncode, out, err)
