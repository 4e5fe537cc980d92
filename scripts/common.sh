# shellcheck shell=bash
# Sourced by the scripts: strict mode, the repository's root as current directory, its tools first on PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .cache
export PATH="$PWD/.venv/bin:$PWD/.cache/uv/bin:$PATH"
# Behind a proxy that re-signs TLS, the certificates that uv brings do not do.
export UV_SYSTEM_CERTS=1

fail() {
  echo "$*" >&2
  exit 1
}

# An installation's or a build's thousand lines are of interest only when it fails.
run_logged() {
  local log=.cache/$1.log
  shift
  "$@" >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    fail "This failed: $*
The whole output is in $log."
  }
}

# For `make test`, which sums up: how many checks passed and failed, and what they were.
count() {
  if [ -n "${FASTAPI_RESULTS:-}" ]; then echo "$1 $2 $SECONDS $3" >>"$FASTAPI_RESULTS"; fi
}

# The passed and failed tests of a junit file.
count_junit() {
  local counts
  counts=$(python3 -c '
import sys, xml.etree.ElementTree as ET
suites = list(ET.parse(sys.argv[1]).getroot().iter("testsuite"))
total, skipped, *bad = (sum(int(s.get(k, 0)) for s in suites) for k in ("tests", "skipped", "failures", "errors"))
print(total - skipped - sum(bad), sum(bad))' "$1" 2>/dev/null) || counts="0 1"
  # shellcheck disable=SC2086  # two numbers, meant as two words
  count $counts "$2"
}
