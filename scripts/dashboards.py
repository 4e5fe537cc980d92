#!/usr/bin/env python3
"""Makes Grafana's dashboards and Prometheus' consoles of dashboards.yml of the role; scripts/docs.py writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

FILES = Path(__file__).resolve().parent.parent / "roles/monitoring/files"
SOURCE = FILES / "dashboards.yml"
# https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
UNITS = {
    "percent": "percent",
    "per second": "reqps",
    "seconds": "s",
    "bytes": "bytes",
    "bytes per second": "Bps",
    "days": "d",
    "number": "short",
}
COLUMNS = 24
WIDTHS = {"stat": 4, "graph": 12, "table": 12}
HEIGHTS = {"stat": 4, "graph": 8, "table": 8}
DATASOURCE = {"type": "prometheus", "uid": "fastapi"}
DEPLOYS = "fastapi_deploy_timestamp_seconds"


def load() -> list[dict]:
    return yaml.safe_load(SOURCE.read_text(encoding="utf-8"))


def queries(panel: dict) -> list[dict]:
    return panel.get("queries") or [{"expr": panel["expr"], "legend": panel.get("legend", "")}]


def expressions(dashboard: dict) -> list[str]:
    """All that a dashboard asks Prometheus for."""
    found = [query["expr"] for row in dashboard["rows"] for panel in row["panels"] for query in queries(panel)]
    if "variable" in dashboard:
        found.append(dashboard["variable"]["expr"])
    return [*found, DEPLOYS]


# -- Grafana ----------------------------------------------------------------------------------------------------------


def grafana(dashboard: dict) -> str:
    name = dashboard["name"]
    links = [
        {
            "type": "dashboards",
            "tags": ["fastapi"],
            "title": "daoman.fastapi",
            "asDropdown": True,
            "keepTime": True,
            "icon": "external link",
            "includeVars": False,
            "targetBlank": False,
            "tooltip": "",
            "url": "",
        }
    ]
    result = {
        "uid": f"fastapi-{'overview' if name == 'index' else name}",
        "title": f"FastAPI: {dashboard['title']}",
        "tags": ["fastapi"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": links,
        "annotations": {"list": [deploys(dashboard)]},
        "templating": {"list": variables(dashboard)},
        "panels": panels(dashboard),
    }
    return json.dumps(result, indent=2) + "\n"


def deploys(dashboard: dict) -> dict:
    chosen = '{app="$app"}' if (dashboard.get("variable") or {}).get("name") == "app" else ""
    return {
        "name": "Deploys",
        "enable": True,
        "datasource": DATASOURCE,
        "iconColor": "purple",
        # The value is the moment of the deploy, not that of the reading.
        "expr": f"{DEPLOYS}{chosen} * 1000",
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": "{{action}} of {{app}}",
        "textFormat": "{{outcome}} on {{instance}}",
        "tagKeys": "app,outcome",
    }


def variables(dashboard: dict) -> list[dict]:
    if "variable" not in dashboard:
        return []
    name, expr = dashboard["variable"]["name"], dashboard["variable"]["expr"]
    return [
        {
            "name": name,
            "label": name,
            "type": "query",
            "datasource": DATASOURCE,
            "refresh": 2,
            "sort": 1,
            "includeAll": False,
            "multi": False,
            "query": {"query": f"query_result({expr})", "refId": "variable"},
            "regex": f'/{name}="([^"]+)"/',
        }
    ]


def panels(dashboard: dict) -> list[dict]:
    result, y = [], 0
    for row in dashboard["rows"]:
        result.append(
            {
                "id": len(result) + 1,
                "type": "row",
                "title": row["title"],
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }
        )
        x, y = 0, y + 1
        for panel in row["panels"]:
            kind = panel.get("kind", "graph")
            width, height = WIDTHS[kind], HEIGHTS[kind]
            if x + width > COLUMNS:
                x, y = 0, y + height
            result.append(
                {"id": len(result) + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **one(panel, kind)}
            )
            x += width
        y += height
    return result


def one(panel: dict, kind: str) -> dict:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": query["expr"].replace("$interval", "$__rate_interval"),
            "legendFormat": re.sub(r"\{(\w+)\}", r"{{\1}}", query.get("legend", "")) or "__auto",
            **({"instant": True, "format": "table"} if kind == "table" else {"instant": kind == "stat"}),
        }
        for number, query in enumerate(queries(panel))
    ]
    defaults = {"unit": UNITS[panel.get("unit", "number")]}
    if "most" in panel:
        defaults.update(min=0, max=panel["most"])
    result = {"title": panel["title"], "datasource": DATASOURCE, "targets": targets}
    if kind == "stat":
        defaults["thresholds"] = thresholds(panel.get("steps"))
        return {
            **result,
            "type": "stat",
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
        }
    if kind == "table":
        hidden = ["Time", "__name__", "job", *([] if "value" in panel else ["Value"])]
        order = {name: number for number, name in enumerate([*panel["columns"], "Value"])}
        return {
            **result,
            "type": "table",
            "fieldConfig": {"defaults": {}, "overrides": []},
            "transformations": [
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": dict.fromkeys(hidden, True),
                        "indexByName": order,
                        "renameByName": {"Value": panel.get("value", "")},
                    },
                }
            ],
        }
    custom = {"fillOpacity": 20 if panel.get("stack") else 8, "lineWidth": 2, "showPoints": "never", "spanNulls": False}
    if panel.get("stack"):
        custom["stacking"] = {"mode": "normal", "group": "A"}
    return {
        **result,
        "type": "timeseries",
        "fieldConfig": {"defaults": {**defaults, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def thresholds(steps: list[float] | None) -> dict:
    """From which value on a number is yellow, and red. Steps below zero are for numbers that must not be too small."""
    colours = [{"color": "green", "value": None}]
    if steps and steps[0] > 0:
        colours += [{"color": "yellow", "value": steps[0]}, {"color": "red", "value": steps[1]}]
    elif steps:
        colours = [
            {"color": "red", "value": None},
            {"color": "yellow", "value": -steps[1]},
            {"color": "green", "value": -steps[0]},
        ]
    return {"mode": "absolute", "steps": colours}


# -- Prometheus' consoles ---------------------------------------------------------------------------------------------


def console(dashboard: dict, every: list[dict]) -> str:
    """The picture itself is drawn by fastapi.lib; Prometheus fills in what may be chosen, and alerts that are on."""
    rows = [
        {"title": row["title"], "panels": [{**panel, "queries": queries(panel)} for panel in row["panels"]]}
        for row in dashboard["rows"]
    ]
    page = {"title": dashboard["title"], "rows": rows, "variable": (dashboard.get("variable") or {}).get("name", "")}
    # Two braces in a row would be Prometheus' own.
    text = re.sub(r"(?<=\{)(?=\{)", " ", json.dumps(page, indent=1))
    links = "".join(
        f'<a href="{item["name"]}.html"{" class=here" if item is dashboard else ""}>{item["title"]}</a>'
        for item in every
    )
    chosen = choices(dashboard)
    alerts = '{{ template "fastapi_alerts" . }}\n' if dashboard["name"] == "index" else ""
    return (
        "<!-- Made by scripts/dashboards.py from dashboards.yml. -->\n"
        f'{{{{ template "fastapi_head" "{dashboard["title"]}" }}}}\n'
        f"<nav>{links}{chosen}</nav>\n{alerts}<main></main>\n"
        f'<script type="application/json" id="page">\n{text}\n</script>\n'
        '{{ template "fastapi_tail" . }}\n'
    )


def choices(dashboard: dict) -> str:
    if "variable" not in dashboard:
        return ""
    name, expr = dashboard["variable"]["name"], dashboard["variable"]["expr"]
    options = (
        f'{{{{ range query `{expr}` | sortByLabel "{name}" }}}}<option>{{{{ .Labels.{name} }}}}</option>{{{{ end }}}}'
    )
    return f'<label>{name} <select id="chosen">{options}</select></label>'


def documents() -> dict[Path, str]:
    dashboards = load()
    wanted = {}
    for item in dashboards:
        name = "overview" if item["name"] == "index" else item["name"]
        wanted[FILES / "grafana" / f"{name}.json"] = grafana(item)
        wanted[FILES / "prometheus/consoles" / f"{item['name']}.html"] = console(item, dashboards)
    return wanted
