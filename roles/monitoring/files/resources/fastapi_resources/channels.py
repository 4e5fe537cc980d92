# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a message gets to somebody: Slack, a webhook, e-mail, syslog. Each raises when it does not."""

from __future__ import annotations

import json
import smtplib
import ssl
import syslog
import time
import urllib.request
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from fastapi_resources.watch import FIRING, RECOVERED, REPEATED

TIMEOUT = 10
WORDS = {
    "cpu": "CPU",
    "memory": "memory",
    "swap": "swap",
    "disk": "disk",
    "inodes": "inodes",
    "load": "load by CPU",
    "descriptors": "open files",
}
MARKS = {FIRING: ":rotating_light:", REPEATED: ":rotating_light:", RECOVERED: ":white_check_mark:"}
LEVELS = {FIRING: syslog.LOG_CRIT, REPEATED: syslog.LOG_CRIT, RECOVERED: syslog.LOG_NOTICE}


def title(message):
    """One line: `app1: disk /srv 96 % (threshold 90 %), firing since 2026-01-31 10:15:00 UTC`."""
    metric, _colon, subject = message["metric"].partition(":")
    unit = "" if metric == "load" else " %"
    what = f"{message['host']}: {WORDS.get(metric, metric)}" + (f" {subject}" if subject else "")
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(message["since"]))
    if message["gone"]:
        return f"{what} is no longer there, {message['kind']} (it fired since {since})"
    value = f"{message['value']:g}{unit} (threshold {message['threshold']:g}{unit})"
    if message["kind"] == RECOVERED:
        return f"{what} {value}, recovered; it fired since {since}, with at most {message['peak']:g}{unit}"
    return f"{what} {value}, {message['kind']} since {since}"


def lost(message):
    count = message.get("dropped", 0)
    return f"{count} earlier messages were dropped, because they could not be delivered" if count else ""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A secret is not carried to wherever an answer points."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


def post(url, body, headers):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method="POST")
    opener = urllib.request.build_opener(NoRedirect)
    with opener.open(request, timeout=TIMEOUT) as response:
        response.read(1024)


def slack(message, settings):
    text = "\n".join(filter(None, [f"{MARKS[message['kind']]} {title(message)}", lost(message)]))
    post(settings["slack_url"], {"text": text}, {})


def webhook(message, settings):
    headers = {"Authorization": f"Bearer {settings['webhook_token']}"} if settings.get("webhook_token") else {}
    body = {**message, "text": title(message), "status": "resolved" if message["kind"] == RECOVERED else "firing"}
    post(settings["webhook_url"], body, headers)


def mail(message, settings):
    letter = EmailMessage()
    letter["From"], letter["To"] = settings["mail_from"], ", ".join(settings["mail_to"])
    letter["Subject"] = title(message).partition(" since ")[0].partition("; it fired")[0]
    letter["Date"], letter["Message-ID"] = formatdate(message["time"]), make_msgid(domain=message["host"])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n".join(filter(None, [title(message), lost(message), "", *details(message)])))
    context = ssl.create_default_context(cafile=settings.get("mail_ca_file") or None)
    tls = settings["mail_security"] == "tls"
    kind = smtplib.SMTP_SSL if tls else smtplib.SMTP
    with kind(
        settings["mail_host"], settings["mail_port"], timeout=TIMEOUT, **({"context": context} if tls else {})
    ) as smtp:
        if settings["mail_security"] == "starttls":
            smtp.starttls(context=context)
        if settings["mail_user"]:
            smtp.login(settings["mail_user"], settings["mail_password"])
        smtp.send_message(letter)


def details(message):
    yield "On the host, this says more: troubleshoot.sh"
    yield f"Message {message['id']} of this host's resource monitor."


def to_syslog(message, settings):
    syslog.openlog("fastapi-resources", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(LEVELS[message["kind"]], title(message))


SENDERS = {"slack": slack, "webhook": webhook, "mail": mail, "syslog": to_syslog}


def chosen(settings):
    """The channels that the settings name."""
    wanted = {
        "slack": settings.get("slack_url"),
        "webhook": settings.get("webhook_url"),
        "mail": settings.get("mail_to"),
        "syslog": settings.get("syslog"),
    }
    return [name for name, on in wanted.items() if on]


def reason(error):
    """Why it failed, without what the error quotes: a URL can be a secret."""
    if isinstance(error, urllib.request.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP status {error.smtp_code}"
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or type(cause).__name__
    return f"{type(error).__name__}: {text}"
