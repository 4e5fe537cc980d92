"""The deploy user may deploy, and nothing else."""

from __future__ import annotations

import subprocess

import pytest
from conftest import HOSTS, KEYS, each

PROGRAM = "/usr/local/sbin/fastapi-deploy"
DEPLOY = f"sudo -n {PROGRAM}"
SHOP = "curl --silent --insecure --resolve shop.example.com:443:127.0.0.1 https://shop.example.com/health/ready"
# A commit of the same tree: nothing but the version is new.
COMMIT = """
    cd /srv/git/example.git
    git config --global --add safe.directory /srv/git/example.git
    commit=$(git -c user.name=t -c user.email=t@example.com commit-tree 'main^{tree}' -p main -m again)
    git tag --force %s "$commit"
"""


@pytest.fixture
def releaser(fleet):
    """Runs a command as the deploy user, who connects with the key."""

    def run(name: str, command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={KEYS}/known_hosts", "-o", f"HostKeyAlias={name}",
             "-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPersist=20",
             "-o", f"ControlPath={KEYS}/{name[-2:]}", "-i", str(KEYS / "key"),
             f"releaser@{fleet.address(name)}", command],
            capture_output=True, text=True, check=False)

    return run


def test_a_version_is_deployed(fleet, releaser):
    def deploys(host):
        fleet.output(host, COMMIT % "v2")
        before = fleet.output(host, "readlink /srv/shop/current").strip()
        done = releaser(host, f"{DEPLOY} shop v2")
        assert done.returncode == 0, done.stdout + done.stderr
        now = fleet.output(host, "readlink /srv/shop/current").strip()
        assert now != before
        assert f"changed: shop serves release {now.rpartition('/')[2]} of v2" in done.stdout
        assert fleet.output(host, f"{SHOP} --output /dev/null --write-out '%{{http_code}}'") == "200"
        assert '"by": "releaser@' in fleet.output(host, "cat /srv/shop/current/state.json")
        done = releaser(host, f"{DEPLOY} shop v2")
        assert done.returncode == 0 and done.stdout.startswith("unchanged: shop serves release")

    each(deploys)


def test_the_playbook_deploys_as_the_deploy_user(fleet):
    each(lambda host: fleet.output(host, COMMIT % "v3"))
    user = {"ansible_user": "releaser", "ansible_become": False}
    done = fleet.play("daoman.fastapi.deploy_version", {"app": "shop", "version": "v3"}, connection=user)
    assert done.returncode == 0 and done.stdout.count("changed=1") == len(HOSTS), done.stdout + done.stderr


def test_a_version_that_is_not_there_changes_nothing(host, releaser):
    before = host.check_output("readlink /srv/shop/current")
    done = releaser(host.backend.hostname, f"{DEPLOY} shop v99")
    assert done.returncode == 1 and "v99" in done.stderr, done.stdout + done.stderr
    assert host.check_output("readlink /srv/shop/current") == before


def test_sudo_lists_one_command(host):
    listed = host.check_output("sudo -l -U releaser")
    commands = [line.strip() for line in listed.splitlines() if line.strip().startswith("(")]
    assert len(commands) == 1 and commands[0].startswith("(root) NOPASSWD: /usr/local/sbin/fastapi-deploy ^"), listed


@pytest.mark.parametrize("command", [
    "sudo -n id", "sudo -n -i", "sudo -n bash -c id", "sudo -n -u shop id", "sudo -n python3 -c 1",
    "sudo -n systemctl status", "sudo -n tee /etc/sudoers.d/mine", "sudoedit -n /etc/shadow",
    "sudo -n cat /var/lib/fastapi/deploy/shop.json",
    DEPLOY, f"{DEPLOY} shop", f"{DEPLOY} shop v2 more", f"{DEPLOY} ../shop v2", f"{DEPLOY} shop --upload-pack=id",
    f"{DEPLOY} shop 'v2;id'", f"{DEPLOY} 'shop v2' v2", f"{DEPLOY} -h", f"{DEPLOY} shop \"$(printf 'v2\\nid')\"",
    f"sudo -n LD_PRELOAD=/tmp/evil.so {PROGRAM} shop v2", f"sudo -n PYTHONPATH=/tmp/evil {PROGRAM} shop v2",
    f"sudo -n -E {PROGRAM} shop v2", f"sudo -n -D /tmp {PROGRAM} shop v2",
])
def test_nothing_else_is_allowed(releaser, command):
    for done in each(lambda host: releaser(host, command)):
        assert done.returncode != 0, done.stdout
        said = done.stdout + done.stderr
        assert "password is required" in said or "not allowed" in said or "not permitted" in said, said
        assert "uid=0" not in said


def test_the_environment_has_no_say(fleet, releaser):
    """Modules that Python would take first, in its path and where the command is run."""
    evil = "open('/run/evil', 'w')"
    command = (f'mkdir -p evil; for name in json os re io; do echo "{evil}" >evil/$name.py; done; cd evil; '
               f"PYTHONPATH=$PWD PYTHONSTARTUP=$PWD/os.py LD_LIBRARY_PATH=$PWD PATH=$PWD:$PATH {DEPLOY} shop v3")
    for done in each(lambda host: releaser(host, command)):
        assert done.returncode == 0, done.stderr
    for host in HOSTS:
        assert fleet.inside(host, "test -e /run/evil").returncode == 1


def test_what_the_program_runs_is_root_s(host):
    for path, mode in (("/usr/local/sbin/fastapi-deploy", 0o755), ("/var/lib/fastapi/deploy", 0o700),
                       ("/var/lib/fastapi/deploy/shop.json", 0o600), ("/var/lib/fastapi/deploy/code.zip", 0o600),
                       ("/etc/ssh/fastapi-deploy.keys", 0o644)):
        file = host.file(path)
        assert (file.user, file.mode) == ("root", mode), path
