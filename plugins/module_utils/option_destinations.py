# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the value of each option of each role ends up.

Every option that is text, or a dict without options of its own, is in one line here; a policy test says so. Booleans,
numbers and choices are not: as the spec converts them, they are safe everywhere. A dict has two destinations, of its
keys and of its values; a list has that of its elements. An empty value that is the default means "not set".
"""

from __future__ import annotations

from ansible_collections.daoman.fastapi.plugins.module_utils import destinations as to

NGINX = to.Raw("nginx configuration of the site's owner; nginx -t tests it before it takes effect")
DIRECTIVES = (to.section_name, (to.directive_name, to.directive_value))
ENVIRONMENT = (to.env_name, to.env_value)
HEADERS = (to.header_name, to.header_value)

CERTBOT_TLS = {
    "certbot_tls_ca_bundle": to.file_or_pem,
    "certbot_tls_certificates[].domains": to.domain_or_wildcard,
    "certbot_tls_certificates[].name": to.file_name,
    "certbot_tls_certificates[].profile": to.acme_profile,
    "certbot_tls_certificates[].renew_before_expiry": to.renewal_period,
    "certbot_tls_certificates[].server": to.acme_server,
    "certbot_tls_dns_credentials": to.Secret(to.Raw("the file of a plugin, in the format of that plugin")),
    "certbot_tls_dns_plugin": to.certbot_plugin,
    "certbot_tls_eab_hmac_key": to.Secret(to.hmac_key),
    "certbot_tls_eab_kid": to.Secret(to.word),
    "certbot_tls_email": to.mail_address,
    "certbot_tls_env": ENVIRONMENT,
    "certbot_tls_reissue": to.file_name,
    "certbot_tls_renew_before_expiry": to.renewal_period,
    "certbot_tls_server": to.acme_server,
    "certbot_tls_version": to.version,
}

GUNICORN_APP = {
    "gunicorn_app_apps[].app": to.app_object,
    "gunicorn_app_apps[].checksum": to.checksum,
    "gunicorn_app_apps[].domain": to.domain,
    "gunicorn_app_apps[].env": ENVIRONMENT,
    "gunicorn_app_apps[].extras": to.extra_name,
    "gunicorn_app_apps[].groups": to.extra_name,
    "gunicorn_app_apps[].gunicorn.extra": to.Raw("Python of the app's owner, which runs as the app's user"),
    "gunicorn_app_apps[].gunicorn.forwarded_allow_ips": to.forwarded_allow_ips,
    "gunicorn_app_apps[].gunicorn.umask": to.umask,
    "gunicorn_app_apps[].gunicorn.worker_class": to.python_object,
    "gunicorn_app_apps[].health.readiness": to.url_path,
    "gunicorn_app_apps[].name": to.app_name,
    "gunicorn_app_apps[].python": to.python,
    "gunicorn_app_apps[].release.build_env": ENVIRONMENT,
    "gunicorn_app_apps[].release.build_memory_max": to.memory_limit,
    "gunicorn_app_apps[].release.build_secrets": ENVIRONMENT,
    "gunicorn_app_apps[].release.guard.access_log": to.host_path,
    "gunicorn_app_apps[].release.hooks.after_build": to.command,
    "gunicorn_app_apps[].release.hooks.after_failure": to.command,
    "gunicorn_app_apps[].release.hooks.after_switch": to.command,
    "gunicorn_app_apps[].release.hooks.before_build": to.command,
    "gunicorn_app_apps[].release.hooks.before_switch": to.command,
    "gunicorn_app_apps[].release.hooks.migrate": to.command,
    "gunicorn_app_apps[].release.shared_paths": to.source_path,
    "gunicorn_app_apps[].service.memory_max": to.memory_limit,
    "gunicorn_app_apps[].service.overrides": DIRECTIVES,
    "gunicorn_app_apps[].service.writable_paths": to.writable_path,
    "gunicorn_app_apps[].source": to.source,
    "gunicorn_app_apps[].ssh_key_file": to.host_path,
    "gunicorn_app_apps[].static_paths": to.source_path,
    "gunicorn_app_apps[].subdirectory": to.source_path,
    "gunicorn_app_apps[].version": to.git_revision,
    "gunicorn_app_batch": to.batch,
    "gunicorn_app_config_template": to.controller_path,
    "gunicorn_app_metrics_socket": to.or_nothing(to.socket_path),
    "gunicorn_app_packages": to.package,
    "gunicorn_app_reason": to.one_line,
    "gunicorn_app_server_requirements": to.requirement,
    "gunicorn_app_socket_group": to.user_name,
    "gunicorn_app_tools_env": ENVIRONMENT,
    "gunicorn_app_uv_hashes": to.checksum,
    "gunicorn_app_uv_version": to.version,
}

HARDENING = {
    "hardening_accounts.su_group": to.or_nothing(to.user_name),
    "hardening_banner.text": to.lines,
    # Line by line, deploy_keys checks them.
    "hardening_deploy_user.authorized_keys": to.lines,
    "hardening_deploy_user.name": to.user_name,
    "hardening_fail2ban.ignore": to.any_network,
    "hardening_firewall.extra": to.Raw("rules of nftables; nft -c tests them before they take effect"),
    "hardening_firewall.fleet_hosts": to.network_or_host,
    "hardening_firewall.ssh_allow": to.any_network,
    "hardening_modules.disabled": to.module_name,
    "hardening_monitors": to.network_or_host,
    "hardening_mounts.options": (to.mount_path, to.mount_options),
    "hardening_nginx.extra": to.Raw("directives of the host's owner for nginx.service"),
    "hardening_nginx.write_paths": to.writable_path,
    "hardening_proxies": to.any_network,
    "hardening_ssh.allow_groups": to.sshd_pattern,
    "hardening_ssh.allow_users": to.sshd_pattern,
    "hardening_ssh.extra": to.Raw("settings of sshd; sshd -t tests them before they take effect"),
    "hardening_sudo.extra": to.Raw("lines of sudoers; visudo -c tests them before they take effect"),
    "hardening_sysctl.settings": (to.sysctl_name, to.sysctl_value),
    "hardening_time.servers": to.host,
    "hardening_updates.blacklist": to.package_pattern,
    "hardening_updates.keep_running": to.unit_name,
    "hardening_updates.reboot_time": to.time_of_day,
}

MONITORING = {
    "monitoring_access_allow": to.any_network,
    "monitoring_access_domain": to.full_domain,
    "monitoring_access_users": (to.http_user, to.Secret(to.password_hash)),
    "monitoring_alertmanager_group_by": to.group_label,
    "monitoring_alertmanager_group_interval": to.prometheus_time,
    "monitoring_alertmanager_group_wait": to.prometheus_time,
    "monitoring_alertmanager_mail_from": to.mail_address,
    "monitoring_alertmanager_mail_host": to.host,
    "monitoring_alertmanager_mail_password": to.Secret(to.one_line),
    "monitoring_alertmanager_mail_to": to.mail_address,
    "monitoring_alertmanager_mail_user": to.label_value,
    "monitoring_alertmanager_receivers": to.Data("receivers as Alertmanager takes them; amtool checks them"),
    "monitoring_alertmanager_repeat_interval": to.prometheus_time,
    "monitoring_alertmanager_routes": to.Data("routes as Alertmanager takes them; amtool checks them"),
    "monitoring_alertmanager_slack_channel": to.label_value,
    "monitoring_alertmanager_slack_url": to.Secret(to.http_url),
    "monitoring_alertmanager_watchdog_interval": to.prometheus_time,
    "monitoring_alertmanager_watchdog_url": to.Secret(to.http_url),
    "monitoring_alertmanager_webhook_token": to.Secret(to.word),
    "monitoring_alertmanager_webhook_url": to.Secret(to.http_url),
    "monitoring_alerts": (to.file_name, to.Data("changes of alerts, which alerts.problems() checks")),
    "monitoring_alerts_runbook": to.http_url,
    "monitoring_exporters_address": to.address,
    "monitoring_exporters_nginx_status": to.or_nothing(to.exec_url),
    "monitoring_further_targets[].address": to.endpoint,
    "monitoring_further_targets[].instance": to.label_value,
    "monitoring_further_targets[].job": to.label_value,
    "monitoring_further_targets[].labels": (to.label_name, to.label_value),
    "monitoring_grafana_admin_password": to.Secret(to.one_line),
    "monitoring_grafana_key": to.key_or_url,
    "monitoring_grafana_repository": to.https_url,
    "monitoring_local_services_users": to.user_name,
    "monitoring_logs_journal_max_use": to.journal_size,
    "monitoring_logs_journal_retention": to.journal_time,
    "monitoring_logs_max_size": to.log_size,
    "monitoring_prometheus_interval": to.prometheus_time,
    "monitoring_prometheus_retention_size": to.retention_size,
    "monitoring_prometheus_retention_time": to.prometheus_time,
    "monitoring_prometheus_rules": (to.rule_file, to.Data("rules as Prometheus takes them; promtool checks them")),
    "monitoring_prometheus_settings": (to.label_name, to.Data("settings of Prometheus; promtool checks them")),
    "monitoring_resources_ignored_mounts": to.regex,
    "monitoring_resources_mail_ca_file": to.host_path,
    "monitoring_resources_mail_from": to.mail_address,
    "monitoring_resources_mail_host": to.host,
    "monitoring_resources_mail_password": to.Secret(to.one_line),
    "monitoring_resources_mail_to": to.mail_address,
    "monitoring_resources_mail_user": to.one_line,
    "monitoring_resources_slack_url": to.Secret(to.http_url),
    "monitoring_resources_webhook_token": to.Secret(to.word),
    "monitoring_resources_webhook_url": to.Secret(to.http_url),
    "monitoring_targets[].address": to.endpoint,
    "monitoring_targets[].instance": to.label_value,
    "monitoring_targets[].job": to.label_value,
    "monitoring_targets[].labels": (to.label_name, to.label_value),
    "monitoring_troubleshoot_addresses": to.address,
}

NGINX_ROLE = {
    "nginx_acme_peers": to.peer,
    "nginx_auth_basic_limit.rate": to.or_nothing(to.nginx_rate),
    "nginx_conf_template": to.controller_path,
    "nginx_error_html": to.nginx_text,
    "nginx_gzip_types": to.mime_type,
    "nginx_headers": HEADERS,
    "nginx_http_extra": NGINX,
    "nginx_keepalive_timeout": to.nginx_time,
    "nginx_main_extra": NGINX,
    "nginx_kept_sites": to.site_name,
    "nginx_packages": to.package,
    "nginx_real_ip_from": to.network,
    "nginx_real_ip_header": to.header_name,
    "nginx_site_template": to.controller_path,
    "nginx_sites[].aliases": to.domain_or_wildcard,
    "nginx_sites[].allow": to.network,
    "nginx_sites[].auth_basic": to.auth_realm,
    "nginx_sites[].auth_basic_user_file": to.host_path,
    "nginx_sites[].cache_max_size": to.nginx_size,
    "nginx_sites[].certificate": to.file_name,
    "nginx_sites[].client_max_body_size": to.nginx_size,
    "nginx_sites[].content_security_policy": to.header_value,
    "nginx_sites[].domain": to.domain,
    "nginx_sites[].extra": NGINX,
    "nginx_sites[].headers": HEADERS,
    "nginx_sites[].limit_conn[].key": to.nginx_variable,
    "nginx_sites[].limit_req[].key": to.nginx_variable,
    "nginx_sites[].limit_req[].rate": to.nginx_rate,
    "nginx_sites[].location_extra": NGINX,
    "nginx_sites[].locations[].allow": to.network,
    "nginx_sites[].locations[].auth_basic": to.auth_realm,
    "nginx_sites[].locations[].auth_basic_user_file": to.host_path,
    "nginx_sites[].locations[].cache.bypass": to.nginx_variable,
    "nginx_sites[].locations[].cache.headers": to.request_header,
    "nginx_sites[].locations[].cache.key": to.nginx_variable,
    "nginx_sites[].locations[].cache.purge": to.network,
    "nginx_sites[].locations[].cache.valid": to.nginx_time,
    "nginx_sites[].locations[].client_max_body_size": to.nginx_size,
    "nginx_sites[].locations[].extra": NGINX,
    "nginx_sites[].locations[].headers": HEADERS,
    "nginx_sites[].locations[].limit_conn[].key": to.nginx_variable,
    "nginx_sites[].locations[].limit_req[].key": to.nginx_variable,
    "nginx_sites[].locations[].limit_req[].rate": to.nginx_rate,
    "nginx_sites[].locations[].path": to.location_path,
    "nginx_sites[].locations[].timeouts.connect": to.nginx_time,
    "nginx_sites[].locations[].timeouts.read": to.nginx_time,
    "nginx_sites[].locations[].timeouts.send": to.nginx_time,
    "nginx_sites[].maintenance.allow": to.network,
    "nginx_sites[].name": to.site_name,
    "nginx_sites[].redirects[].path": to.redirect_path,
    "nginx_sites[].redirects[].to": to.redirect_target,
    "nginx_sites[].static[].directory": to.published_path,
    "nginx_sites[].static[].expires": to.nginx_expires,
    "nginx_sites[].static[].hashed": to.nginx_regex,
    "nginx_sites[].static[].previous": to.published_path,
    "nginx_sites[].static[].url": to.static_url,
    "nginx_sites[].template": to.controller_path,
    "nginx_sites[].timeouts.connect": to.nginx_time,
    "nginx_sites[].timeouts.read": to.nginx_time,
    "nginx_sites[].timeouts.send": to.nginx_time,
    "nginx_sites[].upstream.hash_key": to.nginx_variable,
    "nginx_sites[].upstream.keepalive_timeout": to.nginx_time,
    "nginx_sites[].upstream.servers[].address": to.server_address,
    "nginx_sites[].upstream.servers[].fail_timeout": to.nginx_time,
    "nginx_sites[].upstream.tries_timeout": to.nginx_time,
    "nginx_ssl_ciphers": to.cipher,
    "nginx_status_address": to.or_nothing(to.server_address),
    "nginx_worker_processes": to.worker_processes,
}

SYSTEMD_SERVICE = {
    "systemd_service_units[].name": to.unit_name,
    "systemd_service_units[].sections": DIRECTIVES,
}

ROLES = {
    "certbot_tls": CERTBOT_TLS,
    "gunicorn_app": GUNICORN_APP,
    "hardening": HARDENING,
    "monitoring": MONITORING,
    "nginx": NGINX_ROLE,
    "systemd_service": SYSTEMD_SERVICE,
}


def mark(role, options):
    """Gives each option of a role's spec its destination."""
    table = ROLES.get(role, {})
    for path, option in leaves(options):
        if path in table:
            option["destination"] = table[path]


def leaves(options, path=""):
    """The options without options of their own, with their paths: list elements are `[]`."""
    for name, option in options.items():
        where = f"{path}.{name}" if path else name
        inner = option.get("options")
        if inner is None:
            yield where, option
        else:
            yield from leaves(inner, where + ("[]" if option.get("type") == "list" else ""))


def needs_destination(option):
    """Whether an option can hold text."""
    kind = option.get("elements", "raw") if option["type"] == "list" else option["type"]
    return kind not in ("bool", "float", "int") and not option.get("choices")
