"""Breaks the hosts in one way after the other, side by side, and keeps what troubleshoot.sh said each time."""

from __future__ import annotations

import datetime
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import testinfra
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from faults import FAULTS, PRELUDE

# In every secret of the scenario's group_vars.
SEED = "s33d"
SITE = "shop.example.com"


@dataclass
class Diagnosis:
    """What was said about one fault, and how long that took."""

    code: int
    findings: dict[str, dict]
    output: str = field(repr=False)
    text: str = field(repr=False)
    seconds: float


class Doctor:
    def __init__(self, host) -> None:
        self.host = host

    def shell(self, script: str):
        return self.host.run("bash -c %s", PRELUDE + script)

    def ask(self, *options: str, since: float | None = None):
        """What it says of all since a moment, by default of a quarter of an hour."""
        # The window ends when the program has started, which on a busy machine takes a while.
        window = 900 if since is None else int(time.time() - since) + 2
        return self.host.run(" ".join(["troubleshoot.sh", "--window", str(window), *options]))

    def diagnose(self, since: float | None = None, text: bool = False) -> Diagnosis:
        begun = time.monotonic()
        done = self.ask("--json", since=since)
        seconds = time.monotonic() - begun
        assert done.rc in {0, 1, 2}, done.stdout + done.stderr
        findings = {item["id"]: item for item in json.loads(done.stdout)["findings"]}
        shown = self.ask(since=since).stdout if text else ""
        return Diagnosis(done.rc, findings, done.stdout, shown, seconds)

    def certificate(self, folder: str, name: str, days: tuple[int, int]) -> None:
        """A certificate and its key, valid from and to so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        today = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(today + datetime.timedelta(days[0]))
            .not_valid_after(today + datetime.timedelta(days[1]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.host.check_output(
            "bash -c %s",
            f"umask 077; mkdir -p {folder}; cd {folder}; echo '{pem}' >fullchain.pem; echo '{secret}' >privkey.pem",
        )


@pytest.fixture
def doctor(host) -> Doctor:
    return Doctor(host)


def examine(host) -> dict[str, Diagnosis]:
    doctor = Doctor(host)
    doctor.certificate("/root/certificates/expired", SITE, (-30, -1))
    doctor.certificate("/root/certificates/expiring", SITE, (-80, 10))
    doctor.certificate("/root/certificates/other", "other.example.com", (-1, 90))
    doctor.certificate("/root/certificates/new", SITE, (-1, 90))
    found = {"healthy": doctor.diagnose(since=time.time(), text=True)}
    mended = time.time()
    for number, fault in enumerate(FAULTS):
        broken = doctor.shell(fault.inject)
        # Only what was said since the fault before was mended.
        found[fault.name] = doctor.diagnose(since=mended, text=number % 5 == 0)
        undone = doctor.shell(fault.undo)
        assert (broken.rc, undone.rc) == (0, 0), (fault.name, broken, undone, found[fault.name].text)
        mended = time.time()
    time.sleep(2.1)
    found["mended"] = doctor.diagnose(since=time.time())
    return found


@pytest.fixture(scope="session")
def all_diagnoses():
    hosts = testinfra.get_hosts(["ansible://all"], ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(examine, hosts))
    return {host.backend.hostname: result for host, result in zip(hosts, results, strict=True)}


@pytest.fixture
def diagnoses(host, all_diagnoses) -> dict[str, Diagnosis]:
    return all_diagnoses[host.backend.hostname]
