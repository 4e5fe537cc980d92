"""tests/alerts/alerts.yml as promtool takes it, and the rule files with the defaults of the role."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ansible_collections
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
ansible_collections.__path__ = [str(ROOT / "collections/ansible_collections"), *ansible_collections.__path__]

from ansible_collections.daoman.fastapi.plugins.module_utils import alerts, spec  # noqa: E402 - the path comes first

CASES = yaml.safe_load((ROOT / "tests/alerts/alerts.yml").read_text(encoding="utf-8"))


def rule_files() -> dict[str, str]:
    option = spec.load("monitoring")["monitoring_alerts_thresholds"]
    files = alerts.files(spec.default(option), {}, "https://example.com/alerts.md")
    return {name: json.dumps(content) for name, content in files.items()}


def promtool_test(alert: str, every: str) -> dict:
    """The cases of an alert with readings so far apart, as a file for `promtool test rules`."""
    source = next(name for name, text in alerts.sources().items() if f"alert: {alert}\n" in text)
    tests = []
    for case in CASES[alert]:
        if case.get("every", "1m") != every:
            continue
        labels = case.get("fires", {})
        by = f"by ({', '.join(labels)}) " if labels else ""
        expected = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        tests.append(
            {
                "name": f"{alert}: {case['why']}",
                "interval": every,
                "input_series": [{"series": name, "values": values} for name, values in case["series"].items()],
                "promql_expr_test": [
                    {
                        "expr": f'count {by}(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                        "eval_time": case["at"],
                        "exp_samples": [{"labels": "{" + expected + "}", "value": 1}] if labels else [],
                    }
                ],
            }
        )
    return {
        "rule_files": [f"rules/{source}"],
        "evaluation_interval": every,
        # promtool takes groups in any order; an alert before what it is recorded from has old values, or none.
        "group_eval_order": [group["name"] for group in yaml.safe_load(rule_files()[source])["groups"]],
        "tests": tests,
    }


def write(folder: Path) -> None:
    """All of it into a directory: rules/ and a file of tests for each alert."""
    (folder / "rules").mkdir(parents=True)
    for name, text in rule_files().items():
        (folder / "rules" / name).write_text(text, encoding="utf-8")
    for alert, cases in CASES.items():
        for every in sorted({case.get("every", "1m") for case in cases}):
            path = folder / f"{alert}-{every}.test.yml"
            path.write_text(json.dumps(promtool_test(alert, every)), encoding="utf-8")
