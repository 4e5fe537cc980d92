# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's part of daoman.fastapi.release: turns the app into what the host needs, and uploads a local source."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.daoman.fastapi.plugins.module_utils._host.caged_fetch import file_digest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import redact_url
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import (
    POINTS,
    app_source_type,
    is_task_file,
    is_url,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host.systemd import env_value
from ansible_collections.daoman.fastapi.plugins.module_utils.release_units import MARGIN, units
from ansible_collections.daoman.fastapi.plugins.plugin_utils.by_whom import is_over, this_run, who
from ansible_collections.daoman.fastapi.plugins.plugin_utils.collection_version import collection_version

# Never part of a release, whether or not the directory is under git.
IGNORED = {".git", ".hg", ".venv", "venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "node_modules"}

# Options of an app which the host takes as they are.
AS_GIVEN = (
    *("name", "domain", "version", "checksum", "ssh_key_file", "subdirectory"),
    *("python", "extras", "groups", "static_paths", "health"),
)
# What a build may use, by the options `release.build_<name>`.
BUILD_LIMITS = ("memory_max", "tasks_max", "cpu_weight", "io_weight")
# The hooks that make files of a release, and so are part of what it is.
BUILD_HOOKS = ("before_build", "after_build")


def directory_files(top):
    """Relative paths of a directory's files, sorted: what git does not ignore; without git, all but caches."""
    listed = b""
    if shutil.which("git"):
        listing = ["git", "-C", top, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, capture_output=True, check=False).stdout
    paths = listed.decode("utf-8", "surrogateescape").split("\0")
    paths = {path for path in paths if path and os.path.lexists(os.path.join(top, path))}
    if not paths:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if name not in IGNORED]
            links = [name for name in names if os.path.islink(os.path.join(directory, name))]
            paths.update(os.path.relpath(os.path.join(directory, name), top) for name in files + links)
    return sorted(path for path in paths if not IGNORED.intersection(path.split(os.sep)) and not path.endswith(".pyc"))


def directory_digest(top, paths):
    """Digest over names, contents, link targets and execute bits: all of a file that a release keeps."""
    total = hashlib.sha256()
    for path in paths:
        full = os.path.join(top, path)
        if os.path.islink(full):
            kind, content = "link", os.readlink(full)
        else:
            kind, content = "exec" if os.access(full, os.X_OK) else "file", file_digest(full)
        total.update(json.dumps([path, kind, content]).encode())
    return "sha256:" + total.hexdigest()


def pack(top, paths, target):
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for path in paths:
            archive.add(os.path.join(top, path), arcname=path, recursive=False)


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        app = arguments["app"]
        kind = app_source_type(app)
        hooks = app["release"]["hooks"]
        files = {
            hook: self._find(hook, os.path.isfile, f"{app['name']}: the hook '{hook}' is no file")
            for entries in hooks.values()
            for hook in filter(is_task_file, entries)
        }
        local = self._local(app, kind)
        parameters = {
            **{key: app[key] for key in AS_GIVEN},
            "source": local or app["source"],
            "source_type": kind,
            "source_digest": "",
            "upload": "",
            "env": {key: env_value(value) for key, value in app["env"].items()},
            "build_env": {key: env_value(value) for key, value in app["release"]["build_env"].items()},
            "build_secrets": {key: env_value(value) for key, value in app["release"]["build_secrets"].items()},
            "build_limits": {key: app["release"][f"build_{key}"] for key in BUILD_LIMITS},
            "build_timeout": app["release"]["build_timeout"],
            "resolve_timeout": app["release"]["resolve_timeout"],
            "hook_timeout": app["release"]["build_timeout"],
            "hooks": {point: [hook for hook in hooks[point] if not is_task_file(hook)] for point in hooks},
            # Only Ansible can run them: fastapictl names them and refuses.
            "task_files": {point: [hook for hook in hooks[point] if is_task_file(hook)] for point in hooks},
            "build_hooks": {
                point: [file_digest(files[hook]) if hook in files else hook for hook in hooks[point]]
                for point in BUILD_HOOKS
            },
            "shared_paths": sorted(os.path.normpath(path) for path in app["release"]["shared_paths"]),
            "guard": app["release"]["guard"],
            "keep": app["release"]["keep"],
            "exposure_limit": app["service"]["exposure_limit"],
            "preload_app": app["gunicorn"]["preload_app"],
            "preload_unsafe": app["gunicorn"]["preload_unsafe"],
            "timeout_start": app["service"]["timeout_start"],
            "timeout_stop": int(app["gunicorn"]["graceful_timeout"] + app["release"]["linger"] + MARGIN),
            "units": units(app, arguments["socket_group"]),
            "files": {
                "gunicorn.conf.py": arguments["config"],
                "start.sh": arguments["start_script"],
                **{f"lib/{name}": text for name, text in arguments["lib"].items()},
            },
            "server_requirements": arguments["server_requirements"],
            "uv_version": arguments["uv_version"],
            "uv_hashes": arguments["uv_hashes"],
            "tools_env": {key: env_value(value) for key, value in arguments.get("tools_env", {}).items()},
            "socket_group": arguments["socket_group"],
            "who": who(),
            "run": this_run(),
            "reason": arguments.get("reason")
            or f"deploy of {app['version'] if kind == 'git' else redact_url(app['source'])}",
            "until": arguments.get("until", "done"),
            "migrate": boolean(arguments.get("migrate", True)),
            "rebuild": boolean(arguments.get("rebuild", False)),
            "break_lock": boolean(arguments.get("break_lock", False)),
            "forget_secrets": boolean(arguments.get("forget_secrets", False)),
            "release_again": boolean(arguments.get("release_again", False)),
            "release": arguments.get("release", ""),
            "previous": arguments.get("previous", ""),
            "resolved": arguments.get("resolved") or {},
            "lock_wait": 0,
            "collection": collection_version(),
            "allow_downgrade": boolean(arguments.get("allow_downgrade", True)),
            "set_up": boolean(arguments.get("set_up", True)),
        }
        paths = None
        if local:
            paths = directory_files(local) if kind == "directory" else None
            parameters["source_digest"] = directory_digest(local, paths) if kind == "directory" else file_digest(local)
            if app["checksum"] and kind != "directory" and parameters["source_digest"] != app["checksum"].lower():
                raise AnsibleActionFail(
                    f"{app['name']}: {local} has checksum {parameters['source_digest']}, wanted {app['checksum']}. "
                    "Nothing of it was used."
                )
        answer = self._apply(parameters, task_vars)
        if answer.pop("need_upload", False):
            parameters["upload"] = self._upload(local, paths)
            answer = self._apply(parameters, task_vars)
        if is_over(answer.pop("locked_by_run", "")):
            parameters["break_lock"] = True
            answer = self._apply(parameters, task_vars)
        seconds = int(arguments.get("lock_wait") or 0)
        holder = answer.pop("locked_by", "")
        if seconds and holder:
            parameters["lock_wait"] = seconds
            Display().display(f"{app['name']}: waits for {holder}, for at most {seconds} s.")
            answer = self._apply(parameters, task_vars)
            for key in ("locked_by", "locked_by_run"):
                answer.pop(key, None)
        if parameters["upload"]:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        result.update(answer)
        result["app"], result["host"] = app["name"], task_vars["inventory_hostname"]
        due = hooks.get(dict(POINTS).get(parameters["until"]), []) if result.get("changed") else []
        result["task_files"] = [files[hook] for hook in due if hook in files]
        return result

    def _apply(self, parameters, task_vars):
        arguments = {"prepared": json.dumps(parameters)}
        return self._execute_module("daoman.fastapi.release_apply", module_args=arguments, task_vars=task_vars)

    def _local(self, app, kind):
        """Absolute path of a source that lies on the controller, or None."""
        source = app["source"]
        if kind not in {"directory", "archive", "wheel"} or is_url(source):
            return None
        what = "directory" if kind == "directory" else "file"
        return self._find(
            source,
            os.path.isdir if kind == "directory" else os.path.isfile,
            f"{app['name']}: source '{source}' is no {what}",
            " Or set source_type.",
        )

    def _find(self, path, fits, problem, mend=""):
        """The absolute path of something on the controller."""
        # Where the user stands, as in a project of playbooks; else beside the playbook.
        for candidate in (os.path.abspath(os.path.expanduser(path)), self._loader.path_dwim(path)):
            if fits(candidate):
                return candidate
        raise AnsibleActionFail(
            f"{problem} on the controller, neither from {os.getcwd()} nor beside the playbook. "
            f"Give an absolute path.{mend}"
        )

    def _upload(self, local, paths):
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        tmpdir = self._connection._shell.tmpdir
        remote = self._connection._shell.join_path(
            tmpdir, os.path.basename(local) if paths is None else "source.tar.gz"
        )
        with tempfile.TemporaryDirectory() as directory:
            packed = local
            if paths is not None:
                packed = os.path.join(directory, "source.tar.gz")
                pack(local, paths, packed)
            self._transfer_file(packed, remote)
        self._fixup_perms2((tmpdir, remote))
        return remote
