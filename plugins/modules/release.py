#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Release a FastAPI app beside the one that serves, and send users to it once it answers
description:
  - Fetches the source, builds a virtual environment with uv, and lays both down with configuration, environment and
    units as one immutable release in C(/srv/<name>/releases/<id>).
  - Starts it on its own socket, waits until it answers its readiness path, and then points C(/srv/<name>/live.sock),
    the one address that nginx knows, at it by an atomic rename. The release before is then drained and stopped.
  - A failure before that moment changes nothing for users, one after it sends them back. The failed release is stopped
    and marked, and the output holds what the app and its unit said.
  - Nothing happens when nothing that decides how the app runs differs from the live release.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.1.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
    description: Asks the source for its revision and predicts a release; nothing is fetched or built.
  diff_mode:
    support: full
    description: Shows the revision, configuration and units. Of the environment only names are shown.
  platform:
    platforms: debian
    support: full
options:
  app:
    description: One element of C(gunicorn_app_apps), with its defaults filled in.
    type: dict
    required: true
  config:
    description: Text of C(gunicorn.conf.py).
    type: str
    required: true
  start_script:
    description: Text of C(start.sh).
    type: str
    required: true
  lib:
    description: Text of the worker's modules by file name, such as C(fastapi_worker.py), in C(lib/).
    type: dict
    required: true
  server_requirements:
    description: Pinned requirements of the server, each installed only where the app does not bring the package.
    type: list
    elements: str
    default: []
  uv_version:
    description: Version of uv that builds.
    type: str
    required: true
  uv_hashes:
    description: Hashes of the files of that version which may be installed.
    type: list
    elements: str
    required: true
  tools_env:
    description: Environment in which root installs uv and interpreters, for all apps.
    type: dict
    default: {}
  socket_group:
    description: Group that may connect to the socket and read static files.
    type: str
    default: www-data
  until:
    description:
      - The last thing to do. A later call in the same run of the playbook goes on from there; until then the app's lock
        keeps others out.
      - V(lock) only takes the lock.
      - V(resolve) only asks a git source for the revision, for O(resolved) on other hosts.
      - V(abort) gives up what this run has begun on this host, or has done if O(previous) is given.
    type: str
    choices: [resolve, lock, fetch, build, seal, migrate, ready, switch, done, abort]
    default: done
  resolved:
    description:
      - RV(resolved) of another host. Where that one asked the same source for the same version, its revision is
        released.
    type: dict
    default: {}
  lock_wait:
    description: Seconds to wait for another run that holds the lock of the app. The output says for whom.
    type: int
    default: 0
  set_up:
    description: Whether an app that is not on the host yet may be released. Otherwise that is a failure.
    type: bool
    default: true
  allow_downgrade:
    description: >-
      Whether to release where a newer version of this collection has set the host up. Otherwise that is a failure.
    type: bool
    default: true
  migrate:
    description: Whether to run the commands of the hook C(migrate), or another host does it.
    type: bool
    default: true
  release:
    description: With O(until=abort) the release to be given up.
    type: str
    default: ""
  previous:
    description: With O(until=abort) the release to return to.
    type: str
    default: ""
  reason:
    description: Why, for the lock and the history. Empty means the version.
    type: str
    default: ""
  rebuild:
    description: >-
      Rebuild the release and its virtual environment, also if an intact one with the same settings exists.
    type: bool
    default: false
    version_added: 0.3.0
  break_lock:
    description: End a run that holds the lock of the app, with all that it has started, and go on.
    type: bool
    default: false
  forget_secrets:
    description: Remove the releases whose environment is not that of the one that serves then, also the way back.
    type: bool
    default: false
  release_again:
    description:
      - Release what is asked for, also where it is held because users were sent back from it by a rollback.
      - Without it the revision that serves stays, takes over settings that differ, and the module warns.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Release | The app serves its wanted release
  daoman.fastapi.release:
    app: "{{ app }}"
    config: "{{ lookup('ansible.builtin.template', 'gunicorn.conf.py.j2', template_vars={'app': app}) }}"
    start_script: "{{ lookup('ansible.builtin.template', 'start.sh.j2', template_vars={'app': app}) }}"
    lib: {fastapi_worker.py: "{{ lookup('ansible.builtin.file', 'fastapi_worker.py') }}"}
    uv_version: 0.13.9
    uv_hashes: ["sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"]
"""

RETURN = r"""
release:
  description: Id of the release that serves after the run.
  returned: always
  type: str
  sample: 20260131T101500Z-3f9a1c0b7d2e
previous:
  description: Id of the release that served before, empty where there was none.
  returned: always
  type: str
revision:
  description: Commit, digest or requirement of the source.
  returned: always
  type: str
resolved:
  description: What the source was asked for, as a digest, and the revision that it gave.
  returned: when O(until=resolve) and the source is git
  type: dict
built:
  description: Whether the release was made, or would be; V(false) where an earlier one is the same.
  returned: always
  type: bool
phases:
  description: Seconds that each phase took.
  returned: when something was released
  type: dict
damage:
  description: What was damaged of the release that served before, because of which another one was made.
  returned: when something was
  type: str
guard:
  description: Requests, errors and 95th percentile (seconds) before and after the switch.
  returned: when there were requests to judge by
  type: dict
cut:
  description: Numbers of requests and WebSockets that were still open when the time to drain was over.
  returned: when there were some
  type: dict
version:
  description: Version of the release that serves after the run.
  returned: always
  type: str
held:
  description: The hold that kept what was asked for from being released, with who, when and why.
  returned: when there is one
  type: dict
task_files:
  description: Files of tasks, on the controller, that are due after O(until).
  returned: always
  type: list
  elements: str
"""
