"""An app that is wanted absent leaves nothing."""

from __future__ import annotations

from fleet import APP

LEFT = f"""
find / -xdev -name '*{APP}*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/var/log/journal/*' \
    -not -path '/root/.ansible/*' -not -path '/srv/git/*'
getent passwd {APP} || getent group {APP} || true
systemctl list-units --all --plain --no-legend '{APP}@*'
grep -rlw {APP} /etc --exclude '*-' || true
"""


def test_an_absent_app_leaves_nothing(fleet, all_users):
    all_users.go()
    fleet.reset()
    fleet.deployed(playbook="site", state="absent", remove_data=True)
    for host in fleet.hosts:
        assert host.run(LEFT, check=False) == ""
        assert host.run("nginx -t 2>&1 | tail -n 1").endswith("test is successful")
    assert "changed=0" in fleet.deployed(playbook="site", state="absent").output
