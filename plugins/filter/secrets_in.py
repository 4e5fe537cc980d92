# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: secrets_in
short_description: The strings of a configuration that are not to be shown
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Lists the strings below keys that tell of a secret, such as C(password), C(bearer_token), C(credentials) or C(url),
    at every depth of dicts and lists. A string itself is one.
positional: _input
options:
  _input:
    description: The configuration.
    type: raw
    required: true
"""

EXAMPLES = r"""
# hidden: "{{ {'basic_auth': {'username': 'prometheus', 'password': 's33d-of-it'}} | daoman.fastapi.secrets_in }}"
# -> [s33d-of-it]
"""

RETURN = r"""
_value:
  description: The strings, each once.
  type: list
  elements: str
"""

import re

# Of a file only the path would be shown.
TELLING = re.compile(r"(pass|secret|token|credential|key|url|authorization)(?!.*_file$)", re.I)


def secrets_in(value, telling=True):
    found = {}
    if isinstance(value, str):
        found = {value: None} if telling and value else {}
    elif isinstance(value, dict):
        for key, item in value.items():
            found.update(dict.fromkeys(secrets_in(item, bool(TELLING.search(str(key))))))
    elif isinstance(value, (list, tuple)):
        for item in value:
            found.update(dict.fromkeys(secrets_in(item, telling)))
    return list(found)


class FilterModule:
    def filters(self):
        return {"secrets_in": secrets_in}
