# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx refuses as a combination, or accepts and then ignores: generators of problems.

What nginx does is from its own sources, ngx_http_upstream_*_module.c of 1.22 and 1.26.
"""

from __future__ import annotations

import re

from ansible_collections.daoman.fastapi.plugins.module_utils.header_rules import headers
from ansible_collections.daoman.fastapi.plugins.module_utils.spec import join, problem

# Their balancers keep no list of backup servers.
WITHOUT_BACKUP = ("ip_hash", "hash", "hash consistent", "random", "random two")

# Each is a line of the configuration where there is one server.
MOST_CONNECTIONS = 4096

# Variables that are the same for all who ask for a URL, and headers of a cached request that are nginx's.
FIXED = ("$scheme", "$host", "$server_name", "$server_port", "$request_uri", "$uri", "$args", "$request_id")
OF_NGINX = (
    "connection", "content-length", "expect", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "proxy-connection", "range", "te", "trailer", "transfer-encoding", "upgrade",
    "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-id",
)
SET_HEADER = re.compile(r"^\s*(proxy_set_header\s+\S+\s+([^;]*));", re.M)
NO_SERVERS = "Name its servers in upstream.servers, or leave them out"
PURGE_KEY = "Use $request_uri, and not $request_method"


def entries(items):
    """The dicts of a list with their places."""
    return [(index, item) for index, item in enumerate(items or []) if isinstance(item, dict)]


def least(value, path, minimum):
    if isinstance(value, int) and value < minimum:
        yield problem(path, f"must be at least {minimum}", value)


def variables(value):
    """Of the role's variables together."""
    passwords = value.get("nginx_auth_basic_limit") or {}
    yield from least(passwords.get("burst"), "nginx_auth_basic_limit.burst", 0)
    yield from headers(value.get("nginx_headers"), "nginx_headers")
    yield from least(value.get("nginx_limit_conn"), "nginx_limit_conn", 0)
    networks = value.get("nginx_real_ip_from") or []
    for index, network in enumerate(networks):
        if network in ("0.0.0.0/0", "::/0"):
            yield problem(
                join("nginx_real_ip_from", index), "believes everybody about who they are", network,
                mend="Name the proxies before this host")
    if value.get("nginx_proxy_protocol") and not networks:
        yield problem(
            "nginx_proxy_protocol", "needs nginx_real_ip_from", True,
            mend="Without it every client has the load balancer's address")
    if value.get("nginx_proxy_protocol") and value.get("nginx_http3"):
        yield problem("nginx_http3", "has no PROXY protocol", True, mend="Leave one of them out")
    peers = value.get("nginx_acme_peers") or []
    if peers and value.get("nginx_proxy_protocol"):
        yield problem(
            "nginx_acme_peers", "cannot be asked for challenges with nginx_proxy_protocol, which they expect",
            peers, mend="Prove the names by DNS instead: certbot_tls_challenge: dns")
    if value.get("nginx_tls_policy") == "modern" and value.get("nginx_ssl_ciphers"):
        yield problem(
            "nginx_ssl_ciphers", "means nothing with the policy 'modern', which has no TLS 1.2",
            value["nginx_ssl_ciphers"])


def locations(value, path):
    """What is said of parts of a site, and of single paths."""
    yield from limits(value, path)
    yield from guard(value, path)
    maintenance = value.get("maintenance") or {}
    yield from least(maintenance.get("retry_after"), f"{path}.maintenance.retry_after", 1)
    taken = {}
    for index, entry in entries(value.get("static")):
        if isinstance(entry.get("url"), str):
            taken[entry["url"]] = f"{join(f'{path}.static', index)}.url"
    for index, entry in entries(value.get("locations")):
        where = join(f"{path}.locations", index)
        yield from location(entry, where)
        yield from cached_extra(entry, where, value.get("location_extra"), path)
        yield from once(entry.get("path"), f"{where}.path", taken)
    if value.get("locations") and (value.get("upstream") or {}).get("servers") == []:
        yield problem(f"{path}.locations", "have no application behind them", value["locations"], mend=NO_SERVERS)
    for index, entry in entries(value.get("redirects")):
        where = join(f"{path}.redirects", index)
        source, target = entry.get("path"), entry.get("to")
        if isinstance(source, str):
            yield from once(f"= {source}", f"{where}.path", taken)
        if source == target and source is not None:
            yield problem(f"{where}.to", "leads back to itself", target)


def location(value, path):
    yield from limits(value, path)
    yield from cache(value.get("cache") or {}, f"{path}.cache")
    yield from headers(value.get("headers"), f"{path}.headers")
    yield from guard(value, path)


def guard(value, path):
    """Who may ask, of a site or a location."""
    realm, users = value.get("auth_basic"), value.get("auth_basic_user_file")
    where = f"{path}.auth_basic_user_file"
    if realm == "off" and users:
        yield problem(where, "is not used with auth_basic 'off'", users, mend="Leave one of them out")
    elif realm and realm != "off" and not users:
        yield problem(where, "is required with auth_basic", users, mend="Nobody could log in")
    elif users and not realm:
        yield problem(where, "means nothing without auth_basic", users)


def cached_extra(location, path, location_extra, site):
    """A header that raw configuration adds reaches the application, so what it depends on must be part of the key."""
    cache = location.get("cache") or {}
    if not cache.get("enabled"):
        return
    known = " ".join(filter(None, [cache.get("key"), *(cache.get("bypass") or []), *FIXED]))
    for where, text in ((f"{path}.extra", location.get("extra")), (f"{site}.location_extra", location_extra)):
        for directive, value in SET_HEADER.findall(text or ""):
            unknown = [name for name in re.findall(r"\$\{?(\w+)", value) if not re.search(rf"\${name}\b", known)]
            if unknown:
                yield problem(
                    where, f"gives the application ${unknown[0]}, which is not part of the key of {path}.cache",
                    directive, mend=f"Add it to {path}.cache.key or bypass")


def cache(value, path):
    if not value.get("enabled"):
        for key in ("valid", "bypass", "purge"):
            if value.get(key):
                yield problem(f"{path}.{key}", "means nothing where the cache is not enabled", value[key])
        return
    key = value.get("key")
    if isinstance(key, str) and "uri" not in key:
        yield problem(f"{path}.key", "has no path in it: all would get the same", key, mend="Add $request_uri")
    elif isinstance(key, str) and value.get("purge") and ("$request_method" in key or "$request_uri" not in key):
        yield problem(f"{path}.key", "differs for the method PURGE, which would find nothing", key, mend=PURGE_KEY)
    names = value.get("headers") or []
    for index, name in enumerate(names):
        if isinstance(name, str) and name.lower() in OF_NGINX:
            yield problem(
                join(f"{path}.headers", index), "is a header that nginx sets or removes", name, mend="Leave it out")
    if names and value.get("purge"):
        yield problem(
            f"{path}.headers", "must be empty with purge, which removes the one answer that a URL has", names,
            mend="Set headers: []. The application then gets none of them where an answer may be kept")
    stale = value.get("use_stale") or []
    if "off" in stale and len(stale) > 1:
        yield problem(f"{path}.use_stale", "'off' excludes all else", stale, mend="Leave it out, or all else")


def once(name, path, taken):
    if isinstance(name, str) and taken.setdefault(name, path) != path:
        yield problem(path, "is there twice", name, mend=f"The first is {taken[name]}")


def limits(value, path):
    for index, limit in entries(value.get("limit_req")):
        where = join(f"{path}.limit_req", index)
        yield from least(limit.get("burst"), f"{where}.burst", 0)
        if limit.get("delay") and limit.get("burst") == 0:
            yield problem(f"{where}.delay", "has nothing to hold back with burst 0", True)
    for index, limit in entries(value.get("limit_conn")):
        where = join(f"{path}.limit_conn", index)
        yield from least(limit.get("connections"), f"{where}.connections", 1)


def upstream(value, path):
    """How requests are spread over servers, and offered again."""
    servers = entries(value.get("servers"))
    for key, minimum in (("keepalive", 0), ("tries", 1)):
        yield from least(value.get(key), f"{path}.{key}", minimum)
        number = value.get(key)
        if isinstance(number, int) and number > MOST_CONNECTIONS:
            yield problem(f"{path}.{key}", f"must be at most {MOST_CONNECTIONS}", number)
    again = value.get("next_upstream") or []
    if "off" in again and len(again) > 1:
        yield problem(f"{path}.next_upstream", "'off' excludes all else", again, mend="Leave it out, or all else")
    if again == ["non_idempotent"]:
        yield problem(f"{path}.next_upstream", "'non_idempotent' names no case by itself", again, mend="Add 'error'")
    yield from method(value, path, servers)
    for index, server in servers:
        yield from parameters(server, join(f"{path}.servers", index), value.get("method"), len(servers))
    yield from together(servers, f"{path}.servers")


def method(value, path, servers):
    name, key = value.get("method"), value.get("hash_key")
    hashes = isinstance(name, str) and name.startswith("hash")
    if hashes and not key:
        yield problem(f"{path}.hash_key", "is required by the method 'hash'", key, mend="For example: $request_uri")
    elif key and name and not hashes:
        yield problem(f"{path}.hash_key", f"means nothing to the method '{name}'", key, mend="Use the method 'hash'")
    if name not in (None, "round_robin") and len(servers) == 1:
        yield problem(f"{path}.method", "has nothing to choose from with one server", name, mend="Leave it out")


def parameters(server, path, name, count):
    """Of one server: what its method or its being the only one rules out."""
    for key, minimum in (("weight", 1), ("max_fails", 0), ("max_conns", 0)):
        yield from least(server.get(key), f"{path}.{key}", minimum)
    if server.get("backup") and name in WITHOUT_BACKUP:
        yield problem(
            f"{path}.backup", f"is not supported by the method '{name}'", True,
            mend="Use round_robin or least_conn, or leave it out")
    if count == 1:
        alone = {"weight": 1, "max_fails": 1, "fail_timeout": "10s"}
        for key, default in alone.items():
            if server.get(key) not in (None, default):
                yield problem(
                    f"{path}.{key}", "is ignored by nginx where there is one server", server[key], mend="Leave it out")
    elif server.get("max_fails") == 0 and server.get("fail_timeout") not in (None, "10s"):
        yield problem(
            f"{path}.fail_timeout", "means nothing with max_fails 0", server["fail_timeout"], mend="Leave one out")


def together(servers, path):
    """Of all servers: one address is one server, and one of them must serve."""
    first = {}
    for index, server in servers:
        address = server.get("address")
        if isinstance(address, str) and first.setdefault(address, index) != index:
            yield problem(
                f"{join(path, index)}.address", "is there twice", address,
                mend=f"The first is {join(path, first[address])}. Use 'weight' for a greater share")
    if servers and all(server.get("backup") for _index, server in servers):
        yield problem(path, "are all backups, of nothing", [server for _index, server in servers])
    elif servers and all(server.get("backup") or server.get("down") for _index, server in servers):
        yield problem(path, "are all down or backups", [server for _index, server in servers], mend="One must serve")
