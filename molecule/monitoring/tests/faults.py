"""What breaks on hosts: how it is done for real, what it must be called, and how it is undone."""

from __future__ import annotations

from dataclasses import dataclass

# For all of them: names, and how to get from one state to the next for certain.
PRELUDE = r"""
set -eu
id=$(basename "$(readlink -f /srv/shop/current)")
unit=shop@$id
release=/srv/shop/releases/$id
run=/run/shop/$id.sock
tls=/etc/nginx/tls/shop
site=/etc/nginx/sites-available/shop.conf
get() { curl --silent --output /dev/null --insecure --max-time 20 --resolve shop.example.com:443:127.0.0.1 \
    "https://shop.example.com$1" || true; }
ready() { for _ in $(seq 100); do
    curl --silent --fail --max-time 1 --output /dev/null --unix-socket "$run" http://shop.example.com/health/ready \
        && return
    sleep 0.1
done; return 1; }
again() { systemctl restart "$unit.socket" "$unit.service"; ready; }
# Until all workers are new ones.
reload() { before=$(pgrep -f '^nginx: worker process$' | tr '\n' ' '); nginx -s reload; for _ in $(seq 50); do
    now=$(pgrep -f '^nginx: worker process$' || true); [ -n "$now" ] || { sleep 0.1; continue; }
    for pid in $now; do case " $before " in *" $pid "*) sleep 0.1; continue 2 ;; esac; done; return
done; return 1; }
keep() { cp -a "$1" /root/kept; }
restore() { cat /root/kept >"$1"; }
with_certificate() { mv "$tls" /root/tls; cp -a "/root/certificates/$1" "$tls"; }
old_certificate() { rm -rf "$tls"; mv /root/tls "$tls"; }
pretend() { mount --bind /root/pretended "$1"; }
lock() { printf '{"owner": "ops@example.com", "since": "%s", "reason": "v2", %s}\n' "$1" "$2" >/srv/shop/.lock; }
"""


@dataclass(frozen=True)
class Fault:
    name: str
    finding: str
    inject: str
    undo: str
    # What comes with it, and is said as well.
    also: tuple[str, ...] = ()


FAULTS = [
    # -- the app and its release
    Fault("socket is gone", "app-socket-dead", "rm $run", "again"),
    Fault(
        "nobody listens on the socket",
        "app-socket-dead",
        r"""
        rm $run; python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' $run
        chown shop:www-data $run; chmod 660 $run""",
        "again",
    ),
    Fault(
        "live.sock points nowhere",
        "app-not-live",
        "ln -sfn /run/shop/gone.sock /srv/shop/live.sock",
        "ln -sfn $run /srv/shop/live.sock",
    ),
    Fault(
        "socket of another user",
        "app-socket-owner",
        "chown root:root $run",
        "chown shop:www-data $run",
        ("edge-fails",),
    ),
    Fault(
        "release of another user",
        "app-release-owner",
        "chown shop $release/gunicorn.conf.py",
        "chown root $release/gunicorn.conf.py",
    ),
    Fault(
        "release changed by hand",
        "app-files-changed",
        "keep $release/start.sh; echo '# x' >>$release/start.sh",
        "restore $release/start.sh",
    ),
    Fault("service is stopped", "app-stopped", "systemctl stop $unit.socket $unit.service", "again"),
    Fault("service is stopped, its socket listens", "app-stopped", "systemctl stop $unit.service", "again"),
    Fault(
        "service is disabled at boot",
        "app-disabled",
        "systemctl disable --quiet $unit.service",
        "systemctl enable --quiet $unit.service",
    ),
    Fault(
        "wrong Host", "app-host-refused", "printf other.example.com >/srv/shop/shared/host", "rm /srv/shop/shared/host"
    ),
    Fault("readiness fails", "app-not-ready", "touch /srv/shop/shared/unready", "rm /srv/shop/shared/unready"),
    Fault("environment file is missing", "app-environment", "mv $release/env /root/env", "mv /root/env $release/env"),
    Fault(
        "environment lacks a variable",
        "app-environment",
        "keep $release/env; sed -i /SIGNING/d $release/env",
        "restore $release/env",
    ),
    Fault("app needs a variable that nobody set", "app-environment", "get /missing; sleep 1", "sleep 2.1"),
    Fault("processes killed for memory", "oom-kills", "get '/hoard?400'; ready", "again; sleep 2.1"),
    Fault("memory close to its limit", "memory-limit", "get '/hoard?245'", "again"),
    Fault(
        "release restarts again and again",
        "app-restarting",
        "for _ in 1 2 3 4; do systemctl kill --signal=KILL --kill-whom=main $unit.service; sleep 0.5; ready; done",
        "again; sleep 2.1",
    ),
    Fault("workers crash", "worker-crashes", "for _ in 1 2 3 4; do get /crash; done; sleep 1; ready", "sleep 2.1"),
    Fault("workers hang", "worker-timeouts", "get /block; sleep 2; ready", "sleep 2.1"),
    Fault(
        "stale lock",
        "lock-stale",
        """lock 2026-01-31T10:15:00Z '"pid": 999999, "away": "", "boot": "b"'""",
        ": >/srv/shop/.lock",
    ),
    Fault(
        "lock held by an operator",
        "lock-held",
        """lock 2026-01-31T10:15:00Z '"held": true, "until": ""'""",
        ": >/srv/shop/.lock",
    ),
    Fault(
        "lock held by a process",
        "lock-held",
        """
        flock /srv/shop/.lock sleep 60 & echo $! >/root/holder; sleep 0.2
        lock 2026-01-31T10:15:00Z '"away": "", "pid": 999999'""",
        "pkill -P $(cat /root/holder) || true; : >/srv/shop/.lock",
    ),
    Fault(
        "last deploy failed",
        "deploy-failed",
        """
        keep /srv/shop/history.jsonl
        echo '{"action": "deploy", "outcome": "failed", "phase": "check"}' >>/srv/shop/history.jsonl""",
        "restore /srv/shop/history.jsonl",
    ),
    # -- nginx
    Fault("nginx is stopped", "nginx-stopped", "systemctl stop nginx", "systemctl start nginx"),
    Fault("nginx is disabled", "nginx-disabled", "systemctl disable --quiet nginx", "systemctl enable --quiet nginx"),
    Fault(
        "configuration broken on disk",
        "nginx-config-broken",
        "echo 'nonsense;' >/etc/nginx/conf.d/broken.conf",
        "rm /etc/nginx/conf.d/broken.conf",
        ("nginx-not-loaded",),
    ),
    Fault(
        "configuration edited by hand",
        "nginx-drift",
        "keep $site; echo '# by hand' >>$site; reload",
        "restore $site; reload",
    ),
    Fault(
        "configuration not loaded",
        "nginx-not-loaded",
        "echo '# nothing' >/etc/nginx/conf.d/new.conf",
        "rm /etc/nginx/conf.d/new.conf",
    ),
    Fault(
        "nginx sends elsewhere",
        "upstream-elsewhere",
        "keep $site; sed -i s,/srv/shop/live.sock,/run/other.sock, $site; reload",
        "restore $site; reload",
        ("nginx-drift",),
    ),
    Fault(
        "port is taken",
        "port-taken",
        """
        systemctl stop nginx; systemd-run --quiet --unit=thief python3 -m http.server 443; sleep 1""",
        "systemctl stop thief; systemctl start nginx",
        ("nginx-stopped",),
    ),
    Fault("log directory not writable", "logs-not-writable", "chmod 0700 /var/log/nginx", "chmod 0755 /var/log/nginx"),
    Fault(
        "log deleted under nginx",
        "logs-deleted",
        "rm /var/log/nginx/shop.error.log",
        "install -o www-data -g adm -m 0640 /dev/null /var/log/nginx/shop.error.log; nginx -s reopen; sleep 0.3",
    ),
    Fault("many requests fail", "errors-5xx", "for _ in $(seq 25); do get /fail; done; sleep 1.5", "sleep 2.1"),
    Fault("app is slow", "slow-upstream", "for _ in $(seq 24); do get /slow & done; wait; sleep 1.5", "sleep 2.1"),
    # -- certificates
    Fault("certificate expired", "certificate-expired", "with_certificate expired; reload", "old_certificate; reload"),
    Fault(
        "certificate not renewed",
        "certificate-expiring",
        "with_certificate expiring; reload",
        "old_certificate; reload",
    ),
    Fault(
        "certificate missing", "certificate-missing", "mv $tls /root/tls", "mv /root/tls $tls", ("nginx-config-broken",)
    ),
    Fault(
        "key missing",
        "certificate-missing",
        "with_certificate new; rm $tls/privkey.pem",
        "old_certificate",
        ("nginx-config-broken", "certificate-not-loaded"),
    ),
    Fault(
        "key of another certificate",
        "certificate-key",
        "with_certificate new; cp /root/certificates/other/privkey.pem $tls/",
        "old_certificate",
        ("nginx-config-broken", "certificate-not-loaded"),
    ),
    Fault(
        "certificate for other names", "certificate-names", "with_certificate other; reload", "old_certificate; reload"
    ),
    Fault("old certificate still served", "certificate-not-loaded", "with_certificate new", "old_certificate"),
    # -- the machine
    Fault(
        "disk is full",
        "disk-full",
        """
        mkdir -p /mnt/full; mount -t tmpfs -o size=8m tmpfs /mnt/full; head -c 8M /dev/zero >/mnt/full/x || true""",
        "umount /mnt/full",
    ),
    Fault(
        "inodes are full",
        "inodes-full",
        """
        mkdir -p /mnt/full; mount -t tmpfs -o size=8m,nr_inodes=20 tmpfs /mnt/full
        touch /mnt/full/{1..30} 2>/dev/null || true""",
        "umount /mnt/full",
    ),
    # These two would harm the machine that the tests run on: what the kernel says is replaced.
    Fault(
        "swap is full",
        "swap-full",
        """
        sed 's/^SwapTotal.*/SwapTotal: 1000000 kB/; s/^SwapFree.*/SwapFree: 1000 kB/' /proc/meminfo >/root/pretended
        pretend /proc/meminfo""",
        "umount /proc/meminfo",
    ),
    Fault(
        "load is high",
        "load-high",
        "echo 900.0 900.0 1.0 1/1 1 >/root/pretended; pretend /proc/loadavg",
        "umount /proc/loadavg",
    ),
    Fault(
        "too few file descriptors",
        "descriptors-low",
        "prlimit --pid $(cat /run/nginx.pid) --nofile=64:",
        """
        pid=$(cat /run/nginx.pid)
        prlimit --pid $pid --nofile=$(prlimit --pid $pid --nofile --noheadings --output HARD | tr -d ' '):""",
    ),
    Fault(
        "clock was ahead",
        "clock-wrong",
        "keep /srv/shop/history.jsonl; touch -d '2 days' /srv/shop/history.jsonl",
        "touch /srv/shop/history.jsonl",
    ),
    Fault(
        "unit failed",
        "unit-failed",
        "systemd-run --quiet --unit=broken false; sleep 0.3",
        "systemctl reset-failed broken",
    ),
    Fault(
        "what a timer starts failed",
        "timer-failed",
        r"""
        printf '[Service]\nType=oneshot\nExecStart=/bin/false\n' >/etc/systemd/system/nightly.service
        printf '[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n' >/etc/systemd/system/nightly.timer
        systemctl daemon-reload; systemctl enable --quiet --now nightly.timer
        systemctl start nightly.service || true""",
        """
        systemctl disable --quiet --now nightly.timer; systemctl reset-failed nightly.service
        rm /etc/systemd/system/nightly.*; systemctl daemon-reload""",
    ),
    Fault("timer is stopped", "timer-failed", "systemctl stop logrotate.timer", "systemctl start logrotate.timer"),
    # -- the network
    Fault(
        "name leads elsewhere",
        "dns-elsewhere",
        "keep /etc/hosts; sed 's/^.* shop/203.0.113.9 shop/' /root/kept >/etc/hosts",
        "restore /etc/hosts",
    ),
    Fault(
        "name does not resolve",
        "dns-missing",
        "keep /etc/hosts; grep -v shop.example.com /root/kept >/etc/hosts",
        "restore /etc/hosts",
    ),
    Fault(
        "firewall drops 443",
        "firewall-closed",
        """
        nft add table inet guard; nft 'add chain inet guard input { type filter hook input priority 0; policy drop; }'
        nft add rule inet guard input ct state established,related accept; nft add rule inet guard input iif lo accept
        nft add rule inet guard input tcp dport '{ 22, 80 }' accept""",
        "nft delete table inet guard",
    ),
]
