"""The ACME server is down while a certificate is damaged; then it is there again, and what was added and changed is
undone."""

from __future__ import annotations

import json

import pytest
from conftest import ADDED, changed, describe, disk, os_name, served


@pytest.fixture(scope="module")
def back(fleet):
    """The serials before, the run in vain, what it left, and the run after it."""
    before = fleet.on_all(lambda _name, host: {name: disk(host, name) for name in ("conf", "shop")})
    fleet.on_all(lambda _name, host: host.check_output("sed -i /authenticator/d /etc/letsencrypt/renewal/conf.conf"))
    gone = [{**item, "state": "absent"} for item in ADDED]
    with fleet.without_acme():
        down = fleet.run(certificates=changed() + gone)
    look = fleet.on_all(
        lambda name, host: {
            "conf": disk(host, "conf"),
            "shop": disk(host, "shop"),
            "served": served(host, f"conf.{name}.test"),
            "nginx": host.run("nginx -t").rc,
        }
    )
    return before, down, look, fleet.run("--diff", certificates=changed() + gone)


def test_a_damaged_certificate_is_not_lost_where_the_ca_is_down(back, host):
    before, down, look, _up = back
    said, found = down.of(host), look[os_name(host)]
    assert down.code == 2, down.output[-3000:]
    assert "conf: there is no new certificate" in said and "does not answer" in said, said
    assert "served with the certificate before" in said, said
    assert found["nginx"] == 0
    assert found["served"] == found["conf"] == before[os_name(host)]["conf"]
    assert found["shop"] == before[os_name(host)]["shop"]


def test_the_next_run_mends_it(back, host):
    before, _down, _look, up = back
    assert up.code == 0, up.output[-3000:]
    assert served(host, f"conf.{os_name(host)}.test") == disk(host, "conf") != before[os_name(host)]["conf"]


def test_a_name_that_is_no_longer_wanted_leaves_the_certificate(back, host):
    assert f"www.{os_name(host)}.test: no longer wanted" in " ".join(back[3].output.split())
    assert f"DNS:shop.{os_name(host)}.test\n" in describe(host, "shop")
    assert served(host, f"shop.{os_name(host)}.test") == disk(host, "shop")


def test_the_state_is_that_of_the_host(back, host):
    found = json.loads(host.file("/var/lib/fastapi/certificates.json").content_string)["certificates"]
    assert found["conf"]["serial"] == disk(host, "conf")
    assert not {"closed", "new", "brief"} & set(found)
