# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller hands to the host: the role's templates rendered, for various variables."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template
from ansible_collections.daoman.fastapi.plugins.action import nginx_tree as action
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nginx"
DEFAULTS = {
    name: value for folder in ("defaults", "vars")
    for name, value in yaml.safe_load((ROLE / folder / "main.yml").read_text()).items()
}
TASK = yaml.safe_load((ROLE / "tasks" / "configure.yml").read_text())[0]["daoman.fastapi.nginx_tree"]
SHOP = {"name": "shop", "domain": "shop.example.com", "upstream": {"servers": [{"address": "unix:/run/shop.sock"}]}}


class Action(action.ActionModule):
    """Keeps what it would send."""

    def __init__(self, args, variables):
        loader = DataLoader()
        loader.set_basedir(str(ROLE))
        task = Task()
        task.args = args
        templar = Templar(loader=loader, variables=variables)
        super().__init__(task, None, None, loader, templar, None)
        self.sent = None

    def validate_argument_spec(self, argument_spec=None, **_options):
        """Fills in what Ansible's own, which needs a connection, would."""
        args = {name: self._task.args.get(name, spec.get("default")) for name, spec in argument_spec.items()}
        for name in ("files", "links"):
            options = argument_spec[name]["options"]
            args[name] = [
                {key: item.get(key, spec.get("default")) for key, spec in options.items()} for item in args[name]]
        return None, args

    def _execute_module(self, module_name=None, module_args=None, task_vars=None, **_options):
        self.sent = module_args
        return {}


def send(args, **variables):
    """The files that an action sends: {path: (content, origin)}, and its links."""
    variables = {"ansible_search_path": [str(ROLE)], **variables}
    plugin = Action(args, variables)
    plugin._display = None
    super_run = ActionBase.run
    ActionBase.run = lambda self, tmp=None, task_vars=None: {}
    try:
        plugin.run(task_vars=variables)
    finally:
        ActionBase.run = super_run
    return {item["path"]: item for item in plugin.sent["files"]}, plugin.sent["links"]


def render(*sites, **variables):
    """The texts of the role for some sites."""
    given = {**DEFAULTS, "nginx_sites": list(sites), **variables}
    templates = {"{{ %s }}" % name: given[name] for name in ("nginx_conf_template", "nginx_site_template")}
    args = {**TASK, "files": [
        {**item, "template": templates.get(item["template"], item["template"])} for item in TASK["files"]]}
    files, links = send(args, **given)
    return {path: item["content"] for path, item in files.items()}, links


def site(**options):
    return render({**SHOP, **options})[0]["sites-available/shop.conf"]


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


# -- The role's templates ----------------------------------------------------------------------------------------------


def test_every_site_has_its_files_and_its_link():
    texts, links = render(SHOP, {"name": "b", "domain": "b.example.com"})
    assert sorted(texts) == [
        "nginx.conf", "sites-available/b.conf", "sites-available/shop.conf", "snippets/b.headers.conf",
        "snippets/proxy.conf", "snippets/shop.headers.conf"]
    assert links == [{"path": f"sites-enabled/{name}.conf", "target": f"../sites-available/{name}.conf"}
                     for name in ("shop", "b")]


@pytest.mark.parametrize("version", [(1, 22, 1), (1, 26, 3)])
@pytest.mark.parametrize("sites", [
    [SHOP],
    [{"name": "bare", "domain": "bare.example.com"}],
    [{**SHOP, "aliases": ["a.example.com"], "static": [{"url": "/s/", "directory": "/srv/s"}], "extra": "a;",
      "location_extra": "b;"}],
])
def test_what_is_rendered_is_whole(sites, version):
    for path, text in render(*sites, nginx_main_extra="c;", nginx_http_extra="d;")[0].items():
        text = tree.for_version(text, version)
        code = "\n".join(tree.NO_BRACES.sub("", line) for line in text.splitlines())
        assert code.count("{") == code.count("}"), path
        assert "{{" not in text and "{%" not in text and "None" not in text and "# only nginx" not in text, path
        assert all(line[-1] in ";{}'" or line.startswith("log_format") for line in lines(text)), path


def test_http2_is_written_for_the_version_at_hand():
    text = render(SHOP)[0]["nginx.conf"]
    old, new = lines(tree.for_version(text, (1, 22, 1))), lines(tree.for_version(text, (1, 26, 3)))
    assert "listen 443 ssl http2 default_server;" in old and "http2 on;" not in old
    assert "listen 443 ssl default_server;" in new and "http2 on;" in new
    assert not [line for line in new if line.startswith("listen") and "http2" in line]
    assert "http2" not in " ".join(lines(render(SHOP, nginx_http2=False)[0]["nginx.conf"]))


def test_the_text_is_indented_as_in_the_template():
    assert "\n    listen [::]:443 ssl;\n" in site()


def test_without_ipv6_nothing_listens_on_it():
    assert "[::]" in "".join(render(SHOP)[0].values())
    assert "[::]" not in "".join(render({**SHOP, "aliases": ["a.example.com"]}, nginx_ipv6=False)[0].values())


def test_strings_from_the_command_line_are_what_they_mean():
    text = render(SHOP, nginx_http2="false", nginx_ipv6="no", nginx_gzip="False", nginx_worker_connections="1000")[0]
    assert "http2" not in " ".join(lines(text["nginx.conf"]))
    assert "[::]" not in text["nginx.conf"]
    assert "gzip off;" in text["nginx.conf"]
    assert "worker_rlimit_nofile 3024;" in text["nginx.conf"]


def test_open_files_follow_the_connections_unless_set():
    assert "worker_rlimit_nofile 9216;" in render()[0]["nginx.conf"]
    assert "worker_rlimit_nofile 20000;" in render(nginx_worker_rlimit_nofile=20000)[0]["nginx.conf"]


def test_nested_defaults_come_from_the_spec():
    text = site(timeouts={"read": "5m"})
    assert "proxy_read_timeout 5m;" in text
    assert "proxy_connect_timeout 5s;" in text


def test_a_connection_is_given_up_before_the_application_does():
    text = lines(site())
    assert "keepalive 32;" in text and "keepalive_timeout 2s;" in text
    text = lines(site(upstream={**SHOP["upstream"], "keepalive": 0}))
    assert not [line for line in text if line.startswith("keepalive")]


def test_several_servers_are_one_upstream():
    text = lines(site(upstream={"servers": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80"}]}))
    assert [line for line in text if line.startswith("server ") and "{" not in line] == [
        "server 10.0.0.1:80;", "server 10.0.0.2:80;"]
    assert "zone shop 66k;" in text


def test_a_server_is_offered_a_request_again_where_it_is_the_only_one():
    """Once for each idle connection that may turn out to be dead, and for each that may be opened."""
    def entries(**options):
        text = lines(site(upstream={**SHOP["upstream"], **options}))
        return [line for line in text if line.startswith("server unix")]

    assert len(entries()) == 34 and len(set(entries())) == 1 and entries()[0].endswith(" max_fails=0;")
    assert len(entries(keepalive=0, tries=1)) == 1
    limited = [{**SHOP["upstream"]["servers"][0], "max_conns": 5}]
    assert len(entries(servers=limited)) == 1 and entries(servers=limited)[0].endswith(" max_fails=0 max_conns=5;")


@pytest.mark.parametrize("directory, previous", [
    ("/srv/x/current/src/s/", "/srv/x/previous/src/s/"), ("/srv/s", "/mnt/s"), ("/srv/s", "/srv/s/old")])
def test_hashed_files_are_looked_for_here_and_in_the_release_before_and_nowhere_else(directory, previous):
    text = " ".join(lines(site(static=[{"url": "/s/", "directory": directory, "previous": previous}])))
    roots = [part.partition(";")[0] for part in text.rpartition("listen 443")[2].split(" root ")[1:]]
    assert roots == [directory.rstrip("/"), previous.rstrip("/")]
    assert text.count("try_files /$static_file @previous_0;") == text.count("try_files /$static_file =404;") == 1
    alone = " ".join(lines(site(static=[{"url": "/s/", "directory": directory}])))
    assert "@previous" not in alone and "try_files /$static_file =404;" in alone


@pytest.mark.parametrize("own", [{}, {"limit_conn": [{"connections": 3}]}])
@pytest.mark.parametrize("most", [0, 7])
def test_a_place_with_a_limit_of_its_own_has_the_clients_too(own, most):
    """nginx inherits such limits only where there are none."""
    texts = render({**SHOP, **own}, nginx_limit_conn=most)[0]
    assert ("limit_conn client_network 7;" in texts["nginx.conf"]) is bool(most)
    assert ("limit_conn client_network 7;" in texts["sites-available/shop.conf"]) is bool(most and own)


def blocks(text):
    """The locations of a site's own server: {name: directives, those of nested ones included}."""
    found, name, depth = {}, None, 0
    for line in lines(text.rpartition("listen 443")[2]):
        if line.startswith("location ") and not depth:
            name, depth = line[len("location "):-2], 1
            found[name] = []
            continue
        if depth:
            depth += line.endswith("{") - (line == "}")
            found[name].append(line)
    return found


USERS = {"auth_basic": "Members", "auth_basic_user_file": "/etc/u"}


@pytest.mark.parametrize("given", [
    USERS, {"locations": [{"path": "/", **USERS}]}, {"locations": [{"path": "/x/"}, {"path": "/", **USERS}]}])
def test_a_password_of_the_site_or_its_root_is_that_of_all_places(given):
    text = site(
        **given, docs=True, static=[{"url": "/s/", "directory": "/srv/s"}], redirects=[{"path": "/a", "to": "/b"}])
    server = lines(text.rpartition("listen 443")[2].partition("location ")[0])
    limit = "limit_req zone=auth_basic burst=200 nodelay;"
    assert {'auth_basic "Members";', "auth_basic_user_file /etc/u;", limit} <= set(server)
    found = blocks(text)
    assert "auth_basic off;" not in text
    assert found["= /a"][0].startswith("try_files ") and "return" not in " ".join(found["= /a"])
    # where a limit of its own ends what is inherited, this one is repeated
    limited = blocks(site(**USERS, limit_req=[{"rate": "9r/s"}]))["/"]
    assert limit in limited and len([line for line in limited if "limit_req " in line]) == 2


def test_a_place_can_be_left_open_and_addresses_are_the_sites_too():
    text = site(**USERS, allow=["10.0.0.0/8"], locations=[{"path": "= /health", "auth_basic": "off"}])
    place = blocks(text)["= /health"]
    assert "auth_basic off;" in place and "limit_req zone=no_limit;" in place
    server = text.rpartition("listen 443")[2].partition("location ")[0]
    assert "allow 10.0.0.0/8;" in server and "deny all;" in server
    assert "auth_basic" not in site() and "deny" not in site()
    assert "zone=auth_basic" not in "".join(render({**SHOP, **USERS}, nginx_auth_basic_limit={"rate": ""})[0].values())


@pytest.mark.parametrize("directory, follow, said", [
    ("/srv/a/current/src/x/", "auto", "on from=/srv/a/current/src"),
    ("/srv/a/previous/src", "auto", "on from=/srv/a/previous/src"),
    # the app can make a link of `shared` itself
    ("/srv/a/shared/x/y", "auto", "on from=/srv/a"),
    ("/srv/a/shared", "none", "on from=/srv/a"),
    ("/srv/a/shared2/x", "auto", "if_not_owner"),
    ("/srv/files/static", "auto", "if_not_owner"),
    ("/srv/files/static/", "none", "on from=/srv/files/static"),
    ("/srv/a/current/src/x", "same_owner", "if_not_owner from=/srv/a/current/src"),
    ("/srv/a/shared/x", "all", "off"),
])
def test_links_are_checked_from_where_only_root_can_make_them(directory, follow, said):
    static = [{"url": "/s/", "directory": directory, "previous": directory, "links": follow}]
    found = [line for line in lines(site(static=static)) if line.startswith("disable_symlinks")]
    assert found == [f"disable_symlinks {said};"] * 3


def test_a_kept_answer_depends_on_nothing_but_its_key():
    cache = {"enabled": True, "headers": ["Accept", "X-Own"], "bypass": ["$arg_mine"]}
    text = site(locations=[{"path": "/k/", "cache": cache,
                            "extra": "proxy_set_header X-A b;\n  include snippets/proxy.conf;"}])
    kept, other = blocks(text)["@cached_0"], blocks(text)["/k/"]
    assert 'proxy_cache_key "$scheme$host$request_uri $http_accept\\n$http_x_own";' in kept
    sent = {line.split()[1]: line.split()[2][:-1] for line in kept if line.startswith("proxy_set_header")}
    assert {name: value for name, value in sent.items() if value.startswith("$") and name.startswith(("A", "X-O"))} == {
        "Accept": "$http_accept", "X-Own": "$http_x_own"}
    assert "$remote_addr" not in " ".join(kept) and "$safe_request_id" not in " ".join(sent.values())
    assert "proxy_pass_request_headers off;" in kept and "proxy_pass_request_body off;" in kept
    assert "include snippets/proxy.conf;" in other and "include snippets/proxy.conf;" not in kept
    assert "proxy_no_cache 1;" in other


def test_the_address_of_a_client_is_passed_on_where_it_is_part_of_the_key():
    text = site(locations=[{"path": "/k/", "cache": {"enabled": True, "headers": ["X-Forwarded-For"]}}])
    kept = blocks(text)["@cached_0"]
    assert 'proxy_cache_key "$scheme$host$request_uri $remote_addr";' in kept
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in kept
    assert "proxy_set_header X-Real-IP 233.252.0.1;" in kept


def test_a_header_that_is_part_of_the_key_is_no_longer_a_reason_not_to_keep():
    def condition(**cache):
        text = lines(site(locations=[{"path": "/k/", "cache": {"enabled": True, **cache}}]))
        return next(line for line in text if "_cached_0 {" in line)

    assert "${http_x_api_key}" in condition() and "${http_authorization}" in condition()
    assert "${http_x_api_key}" not in condition(headers=["X-API-Key"])


def test_all_that_a_client_sends_has_a_bound_in_the_log():
    text = render(SHOP)[0]["nginx.conf"]
    logged = set(re.findall(r"[$](\w+)", text.partition("log_format json")[2].partition("access_log")[0]))
    sent = ("http_", "arg_", "cookie_", "request_uri", "request_method", "uri", "host", "server_protocol")
    assert not [name for name in logged if name.startswith(sent)]


def test_a_site_without_an_application_has_nothing_to_pass_on():
    text = site(upstream={})
    assert "proxy_pass" not in text and "upstream " not in text
    assert "location / {" in text


def test_files_at_the_top_take_the_place_of_an_application():
    text = lines(site(upstream={}, static=[{"url": "/", "directory": "/srv/pages"}]).rpartition("listen 443")[2])
    assert text.count("location / {") == 1
    assert "alias /srv/pages/;" in text


@pytest.mark.parametrize("directory", ["/srv/s", "/srv/s/"])
def test_location_and_directory_both_end_with_a_slash(directory):
    text = lines(site(static=[{"url": "/static/", "directory": directory}]))
    assert "location /static/ {" in text and "alias /srv/s/;" in text


def test_a_certificate_of_another_name():
    assert "ssl_certificate tls/wild/fullchain.pem;" in site(certificate="wild")
    assert "ssl_certificate tls/shop/fullchain.pem;" in site()


def test_no_alias_no_server_for_aliases():
    assert site().count("server {") == 2
    assert site(aliases=["a.example.com"]).count("server {") == 3


RAW = 'location /x {\n\treturn 200 "a\n  b";   # {{ no template }}\n}'


@pytest.mark.parametrize("option", ["extra", "location_extra"])
def test_raw_text_of_a_site_arrives_as_it_is_and_marked(option):
    text = site(**{option: RAW + "\n\n"})
    assert f"# from nginx_sites[0].{option}\n{RAW}\n" in text
    assert text.partition(RAW)[2].lstrip().startswith(f"# end of nginx_sites[0].{option}\n")


@pytest.mark.parametrize("option", ["nginx_http_extra", "nginx_main_extra"])
def test_raw_text_arrives_as_it_is_and_marked(option):
    text = render(**{option: RAW})[0]["nginx.conf"]
    assert re.search(rf"# from {option}\n{re.escape(RAW)}\n\s*# end of {option}\n", text)


def test_headers_are_quoted_and_merged():
    headers = {"X-Odd": 'a "b" \\ c', "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": ""}
    text = lines(render({**SHOP, "headers": headers})[0]["snippets/shop.headers.conf"])
    assert 'add_header X-Odd "a \\"b\\" \\\\ c" always;' in text
    assert [line for line in text if "X-Frame-Options" in line] == [
        "proxy_hide_header X-Frame-Options;", 'add_header X-Frame-Options "SAMEORIGIN" always;']
    assert not [line for line in text if "Referrer-Policy" in line]


def test_no_password_or_old_protocol_is_a_default():
    text = render(SHOP)[0]["nginx.conf"]
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    assert "server_tokens off;" in text


# -- The action --------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "mine.j2").write_text(
        '{% extends "site.conf.j2" %}\n{% block server %}\nmine {{ site.name }} {{ certificate }}\n{% endblock %}\n')
    monkeypatch.setattr(Action, "_find_needle", lambda self, folder, name: self._loader.path_dwim_relative_stack(
        [str(ROLE)], folder, name))
    return tmp_path


def one(**item):
    return {"files": [{"path": "{name}.conf", "each": "nginx_sites", "as": "site", "override": "template",
                       "template": "site.conf.j2", **item}], "role": "nginx"}


def test_a_site_can_have_a_template_of_the_users_project(project, monkeypatch):
    monkeypatch.chdir(project)
    files, _links = send(one(), **DEFAULTS | {"nginx_sites": [{**SHOP, "template": "mine.j2"}, {**SHOP, "name": "b"}]})
    assert "mine shop shop" in files["shop.conf"]["content"]
    assert "upstream shop {" in files["shop.conf"]["content"]
    assert "mine" not in files["b.conf"]["content"]
    assert files["b.conf"]["origin"] == "nginx_sites[1]"


def test_a_template_is_found_beside_the_inventory(project):
    files, _links = send(one(template="mine.j2"), inventory_dir=str(project), **DEFAULTS | {"nginx_sites": [SHOP]})
    assert "mine shop" in files["shop.conf"]["content"]


def test_a_template_that_is_nowhere_is_reported_with_the_site(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnsibleActionFail, match=r"nginx_sites\[0\]: the template none\.j2 cannot be rendered"):
        send(one(template="none.j2"), **DEFAULTS | {"nginx_sites": [SHOP]})


def test_a_variable_that_is_missing_in_a_template_is_reported_with_the_site(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "templates" / "mine.j2").write_text("{{ nothing_of_the_kind }}")
    with pytest.raises(AnsibleActionFail, match=r"nginx_sites\[0\]: the template mine\.j2 cannot be rendered"):
        send(one(template="mine.j2"), **DEFAULTS | {"nginx_sites": [SHOP]})


def test_variables_that_are_templates_are_resolved(project):
    sites = [{**SHOP, "domain": trust_as_template("{{ zone }}.example.com")}]
    files, _links = send(one(), zone="eu", **DEFAULTS | {"nginx_sites": sites})
    assert "server_name eu.example.com;" in files["shop.conf"]["content"]


def test_an_option_that_does_not_exist_is_refused(project):
    with pytest.raises(AnsibleActionFail, match=r"nginx_sites\[0\]\.domian"):
        send(one(), **DEFAULTS | {"nginx_sites": [{"name": "shop", "domian": "x"}]})


@pytest.mark.parametrize("path", ["{nothing}.conf", "{name.real}.conf", "{", "{0}"])
def test_a_path_that_cannot_be_filled_in_is_refused(project, path):
    with pytest.raises(AnsibleActionFail, match="cannot be filled in"):
        send(one(path=path), **DEFAULTS | {"nginx_sites": [SHOP]})


@pytest.mark.parametrize("item", [{}, {"template": "site.conf.j2", "content": "x"}])
def test_a_file_needs_either_a_template_or_content(project, item):
    with pytest.raises(AnsibleActionFail, match="either a template or content"):
        send({"files": [{"path": "a.conf", **item}]})


def test_content_is_sent_as_it_is(project):
    files, _links = send({"files": [{"path": "{a}.conf", "content": "{{ x }}", "origin": "mine"}]})
    assert files["{a}.conf"] == {"path": "{a}.conf", "content": "{{ x }}", "origin": "mine", "mode": "0640"}


def test_variables_of_one_file_are_its_own(project, monkeypatch):
    (project / "templates" / "mine.j2").write_text("{{ word }}")
    monkeypatch.chdir(project)
    items = [{"path": "a", "template": "mine.j2", "vars": {"word": "one"}}, {"path": "b", "template": "mine.j2"}]
    files, _links = send({"files": items}, word="two")
    assert (files["a"]["content"], files["b"]["content"]) == ("one", "two")
    assert os.listdir(project) == ["templates"]
