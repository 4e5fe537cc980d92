"""The deploy user may deploy, and nothing else."""

from __future__ import annotations

import shlex
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
    """Asks for a command with the deploy user's key, which is held to the one that deploys."""

    def run(name: str, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={KEYS}/known_hosts", "-o", f"HostKeyAlias={name}",
             "-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPersist=20",
             "-o", f"ControlPath={KEYS}/{name[-2:]}", "-i", str(KEYS / "key"),
             f"releaser@{fleet.address(name)}", *words],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def as_releaser(fleet):
    """Runs a command as the deploy user on the host itself, as somebody who has got past the key would."""
    return lambda name, command: fleet.inside(name, f"cd; runuser -u releaser -- sh -c {shlex.quote(command)}")


def test_a_version_is_deployed(fleet, releaser):
    def deploys(host):
        fleet.output(host, COMMIT % "v2")
        before = fleet.output(host, "readlink /srv/shop/current").strip()
        done = releaser(host, "shop v2")
        assert done.returncode == 0, done.stdout + done.stderr
        now = fleet.output(host, "readlink /srv/shop/current").strip()
        assert now != before
        assert f"changed: shop serves release {now.rpartition('/')[2]} of v2" in done.stdout
        assert fleet.output(host, f"{SHOP} --output /dev/null --write-out '%{{http_code}}'") == "200"
        assert '"by": "releaser@' in fleet.output(host, "cat /srv/shop/current/state.json")
        done = releaser(host, "sudo fastapi-deploy shop v2")
        assert done.returncode == 0 and done.stdout.startswith("unchanged: shop serves release")

    each(deploys)


def test_the_playbook_deploys_as_the_deploy_user(fleet):
    each(lambda host: fleet.output(host, COMMIT % "v3"))
    user = {"ansible_user": "releaser", "ansible_become": False}
    done = fleet.play("daoman.fastapi.deploy_version", {"app": "shop", "version": "v3"}, connection=user)
    assert done.returncode == 0 and done.stdout.count("changed=1") == len(HOSTS), done.stdout + done.stderr


def test_a_version_that_is_not_there_changes_nothing(host, releaser):
    before = host.check_output("readlink /srv/shop/current")
    done = releaser(host.backend.hostname, "fastapi-deploy shop v99")
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
def test_sudo_allows_nothing_else(as_releaser, command):
    for done in each(lambda host: as_releaser(host, command)):
        assert done.returncode != 0, done.stdout
        said = done.stdout + done.stderr
        assert "password is required" in said or "not allowed" in said or "not permitted" in said, said
        assert "uid=0" not in said


@pytest.mark.parametrize("words", [
    ("",), ("id",), ("sh", "-c", "id"), ("sudo", "-n", "id"), (f"{DEPLOY} shop v2; id",), ("shop v2 && id",),
    ("shop $(id)",),
    ("shop v2\nid",), ("../shop v2",), ("shop --upload-pack=id",), ("shop",), ("scp -t /tmp",), ("cat /etc/passwd",),
])
def test_a_key_asks_for_nothing_else(releaser, words):
    for done in each(lambda host: releaser(host, *words)):
        assert done.returncode == 2 and "APP VERSION" in done.stderr, done
        assert "uid=" not in done.stdout and "root:" not in done.stdout


@pytest.mark.parametrize("options", [
    ("-s",), ("-W", "127.0.0.1:22"), ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "2200:[::1]:22"),
])
def test_a_key_neither_transfers_files_nor_forwards_ports(fleet, options):
    """A connection of its own: what is forwarded belongs to it."""
    words = ["sftp"] if options == ("-s",) else []
    done = subprocess.run(
        ["timeout", "20", "ssh", "-F", "none", "-o", f"UserKnownHostsFile={KEYS}/known_hosts",
         "-o", f"HostKeyAlias={HOSTS[0]}", "-o", "BatchMode=yes", "-i", str(KEYS / "key"), *options,
         f"releaser@{fleet.address(HOSTS[0])}", *words],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode not in {0, 124} and "SSH-2.0" not in done.stdout, done


def test_root_lists_releases_goes_back_and_deploys_again(fleet):
    """With the command of the host alone."""
    def there_and_back(host):
        listed = fleet.output(host, "fastapictl releases shop")
        assert "v2" in listed and "v3" in listed and " live" in listed and "rollback goes here" in listed, listed
        assert "of v2" in fleet.output(host, "fastapictl rollback shop v2 --reason 'prices are wrong'")
        assert "rolled back" in fleet.output(host, "fastapictl releases")
        kept = fleet.inside(host, "fastapictl deploy shop v3")
        assert kept.returncode == 0 and "of v2" in kept.stdout and "prices are wrong" in kept.stderr, kept
        assert "v3 (" in fleet.output(host, "fastapictl releases shop | grep 'is held since'")
        assert fleet.output(host, "fastapictl deploy shop v3 --again").startswith("changed: shop serves release")
        assert fleet.output(host, f"{SHOP} --output /dev/null --write-out '%{{http_code}}'") == "200"
        for words, code in (("deploy shop v99", 1), ("deploy blog v1", 3), ("rollback releaser", 3), ("nonsense", 2)):
            assert fleet.inside(host, f"fastapictl {words}").returncode == code, words

    each(there_and_back)


def test_the_environment_has_no_say(fleet, as_releaser):
    """Modules that Python would take first, in its path and where the command is run."""
    evil = "open('/run/evil', 'w')"
    command = (f'mkdir -p evil; for name in json os re io; do echo "{evil}" >evil/$name.py; done; cd evil; '
               f"PYTHONPATH=$PWD PYTHONSTARTUP=$PWD/os.py LD_LIBRARY_PATH=$PWD PATH=$PWD:$PATH {DEPLOY} shop v3")
    for done in each(lambda host: as_releaser(host, command)):
        assert done.returncode == 0, done.stderr
    for host in HOSTS:
        assert fleet.inside(host, "test -e /run/evil").returncode == 1


def test_what_the_program_runs_is_root_s(host):
    for path, mode in (("/usr/local/sbin/fastapi-deploy", 0o755), ("/usr/local/sbin/fastapictl", 0o755),
                       ("/usr/local/lib/fastapi/fastapi_host", 0o755),
                       ("/usr/local/lib/fastapi/fastapi_host/ctl.py", 0o644),
                       ("/var/lib/fastapi", 0o755), ("/var/lib/fastapi/deploy", 0o700),
                       ("/var/lib/fastapi/deploy/shop.json", 0o600), ("/etc/ssh/fastapi-deploy.keys", 0o644)):
        file = host.file(path)
        assert (file.user, file.mode) == ("root", mode), path
    assert host.check_output("ls /var/lib/fastapi/deploy") == "shop.json"
    writable = host.check_output("find /usr/local/lib/fastapi ! -user root -o -perm /022 -o -name '*.pyc'")
    assert writable == "", writable


def test_the_package_of_the_host_needs_nothing_but_its_python(host):
    """Isolated, with the Python of this Debian."""
    code = ("import sys, importlib, pkgutil; sys.path.insert(0, '/usr/local/lib/fastapi'); import fastapi_host; "
            "names = [item.name for item in pkgutil.iter_modules(fastapi_host.__path__)]; "
            "[importlib.import_module('fastapi_host.' + name) for name in names]; print(len(names))")
    assert int(host.check_output("/usr/bin/python3 -I -B -W error -c %s", code)) > 10
