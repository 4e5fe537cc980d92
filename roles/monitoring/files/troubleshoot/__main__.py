# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at this host and says what is wrong with it. Changes nothing."""

import argparse
import json
import os
import sys

# Isolated (-I), Python looks beside this program only; the host's own package lies beside its directory.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastapi_doctor import facts, judge_apps, judge_nginx, judge_orphans, judge_system, report
from fastapi_doctor.finding import FAILED, exit_code, without_others
from fastapi_doctor.host import Host
from fastapi_host.files import apps, no_app


class Parser(argparse.ArgumentParser):
    def error(self, message):
        # 2, argparse's own, would say that something critical was found.
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def arguments():
    parser = Parser(
        prog="troubleshoot.sh",
        description=__doc__,
        epilog="Exit code: 0 healthy, 1 warnings, 2 something critical, 3 this program itself could not work.",
    )
    parser.add_argument("--json", action="store_true", help="all facts and findings as JSON")
    parser.add_argument(
        "--window", type=int, default=900, metavar="SECONDS", help="how far to look back in logs and journal (900)"
    )
    parser.add_argument(
        "--deep", action="store_true", help="read all files of the live releases too, which takes a minute or two"
    )
    parser.add_argument(
        "--app", action="append", default=[], metavar="NAME", help="leave out what is about other apps only"
    )
    parser.add_argument("--config", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--no-colour", action="store_true", help="no colours, as when the output is no terminal")
    return parser.parse_args()


def main():
    args = arguments()
    if os.geteuid() != 0:
        print(
            "troubleshoot.sh: run it as root: sockets, keys and the journal can be read by root only", file=sys.stderr
        )
        return FAILED
    known = apps()
    if unknown := sorted(set(args.app) - set(known)):
        print(f"troubleshoot.sh: {no_app(unknown[0], known)}", file=sys.stderr)
        return FAILED
    host = Host(args.window, *([args.config] if args.config else []), deep=args.deep)
    found = facts.gather(host)
    judges = (judge_apps, judge_nginx, judge_system, judge_orphans)
    findings = [finding for judge in judges for finding in judge.judge(found, host.thresholds)]
    if args.app:
        findings = without_others(findings, args.app, [app["name"] for app in host.apps], host.domains())
    code, redact = exit_code(findings), host.redactor()
    if args.json:
        print(json.dumps(report.as_json(found, findings, code, redact), indent=1))
    else:
        colours = sys.stdout.isatty() and not args.no_colour and not os.environ.get("NO_COLOR")
        print(report.as_text(found, findings, code, redact, colours))
    sys.stdout.flush()
    # Threads that still wait for something do not keep the report waiting.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
