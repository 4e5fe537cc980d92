#!/usr/bin/env python3
"""Writes the tables of options, in the roles' READMEs and docs/fastapi_apps.md, from the specs; and dashboards.

With --check it writes nothing, and fails if a table is not what the specs say.
"""

import argparse
import copy
import difflib
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import dashboards  # noqa: E402 - the path comes first

BEGIN = "<!-- begin of the table made by scripts/docs.py from meta/argument_specs.yml -->"
END = "<!-- end of the table -->"
# Longer defaults would make the table unreadable.
LONGEST_DEFAULT = 80

APPS = ROOT / "docs/fastapi_apps.md"
APPS_TEXT = """# fastapi_apps

The apps of a host, as the playbook `daoman.fastapi.site` takes them. The options are those of the roles `gunicorn_app`
and `nginx`, with what a site needs below `nginx`.

```yaml
fastapi_apps:
  - name: shop
    domain: shop.example.com
    aliases: [www.shop.example.com]
    source: https://git.example.com/acme/shop.git
    version: v1.4.2
    app: app.main:app
    env:
      DATABASE_URL: "{{ vault_shop_database_url }}"
    gunicorn:
      workers: 4
    nginx:
      client_max_body_size: 20m
      static:
        - {url: /static/, directory: app/static}
```

Everything is checked before anything changes. A misspelt option is an error that names the right one. A variable of
your own that looks like a misspelt one of this collection, and is not, can be named in `fastapi_ignored_variables`.
"""


def plain(text: str) -> str:
    """Ansible's markup as Markdown, on one line."""
    # In the braces may be others, in pairs.
    text = re.sub(r"\b[CVOEP]\(((?:[^()]|\([^()]*\))*)\)", lambda match: f"`{match[1]}`", text)
    text = re.sub(r"\bB\((.*?)\)", r"**\1**", text)
    text = re.sub(r"\bI\((.*?)\)", r"*\1*", text)
    text = re.sub(r"\bU\((.*?)\)", r"<\1>", text)
    return " ".join(text.replace("|", r"\|").split())


def description(option: dict) -> str:
    text = option.get("description") or ""
    text = plain(" ".join(text) if isinstance(text, list) else text)
    if option.get("choices"):
        text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    return text


def default(option: dict) -> str:
    if option.get("required"):
        return "**required**"
    value = option.get("default")
    if value is None or (option.get("options") and value == {}):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n...")
    text = '""' if value == "" else text
    if len(text) > LONGEST_DEFAULT:
        return "see `defaults/main.yml`"
    return "`" + text.replace("|", r"\|") + "`"


def rows(options: dict, prefix: str = "") -> list[str]:
    found = []
    for name, option in options.items():
        kind = option.get("type", "str")
        many = kind == "list"
        shown = f"list of {option['elements']}" if many and option.get("elements") else kind
        path = prefix + name
        found.append(f"| `{path}` | {shown} | {default(option)} | {description(option)} |")
        if option.get("options"):
            found += rows(option["options"], f"{path}[]." if many else f"{path}.")
    return found


def table(options: dict) -> str:
    if not options:
        return f"{BEGIN}\n\nThe role has no options.\n\n{END}\n"
    head = ["| variable | type | default | |", "|---|---|---|---|"]
    return "\n".join([BEGIN, "", *head, *rows(options), "", END]) + "\n"


def with_table(text: str, new: str) -> str:
    """The text with its table replaced, or with one at the end."""
    if BEGIN in text:
        before, rest = text.split(BEGIN, 1)
        return before + new.rstrip("\n") + rest.split(END, 1)[1]
    text = text.replace("All variables are described in `meta/argument_specs.yml`.\n", "").rstrip("\n")
    return f"{text}\n\n## Variables\n\n{new}"


def apps_options() -> dict:
    sys.path.insert(0, str(ROOT / "collections"))
    import ansible_collections

    ansible_collections.__path__ = [str(ROOT / "collections/ansible_collections"), *ansible_collections.__path__]
    from ansible_collections.daoman.fastapi.plugins.module_utils import apps

    # the shared spec is not ours to change
    return copy.deepcopy(apps.options())


def documents() -> dict[Path, str]:
    """What each document should be."""
    wanted = {}
    for spec in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        readme = spec.parent.parent / "README.md"
        points = yaml.safe_load(spec.read_text(encoding="utf-8"))["argument_specs"]
        text = readme.read_text(encoding="utf-8") if readme.exists() else f"# daoman.fastapi.{readme.parent.name}\n"
        options = points["main"].get("options") or {}
        wanted[readme] = with_table(text, table(options))
    wanted[APPS] = with_table(APPS_TEXT, table(apps_options()))
    return {**wanted, **dashboards.documents()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is to be written")
    check = parser.parse_args().check
    stale = 0
    for path, text in documents().items():
        now = path.read_text(encoding="utf-8") if path.exists() else ""
        if text == now:
            continue
        stale += 1
        name = str(path.relative_to(ROOT))
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(now.splitlines(True), text.splitlines(True), name, f"{name} as the specs say", n=0)
            )
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{name} is written")
    if check and stale:
        print("\nRun scripts/docs.py.")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
