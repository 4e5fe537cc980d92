"""Asks a site as many clients would while its application's workers are killed, and counts the answers by status.

Called with the site's name, a method, the application's unit, and its socket's .seen file. Two kinds of load take
turns: bursts of slow requests over connections that nginx has just opened, and quick ones over those that it keeps.
"""

import collections
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time

NAME, METHOD, UNIT, SEEN = sys.argv[1:]
ROUNDS, CLIENTS = 2, 40
answers = collections.Counter()
context = ssl.create_default_context(cafile=f"/var/lib/fastapi/placeholder/{NAME.partition('.')[0]}/fullchain.pem")
run = str(time.time_ns())


class Client(http.client.HTTPConnection):
    def connect(self):
        super().connect()
        self.sock = context.wrap_socket(self.sock, server_hostname=NAME)


def ask(client, path):
    try:
        client.request(METHOD, path, body=b"x" if METHOD == "POST" else None, headers={"Host": NAME})
        response = client.getresponse()
        response.read()
        answers[str(response.status)] += 1
    except (OSError, http.client.HTTPException) as error:
        answers[repr(error)] += 1
        client.close()


def client(number, deadline):
    connection = Client("127.0.0.1", 443, timeout=20)
    ask(connection, f"/slow?seconds=0.4&request={run}-{number}")
    count = 0
    while time.monotonic() < deadline:
        count += 1
        ask(connection, f"/quick?request={run}-{number}-{count}")
    connection.close()


def kill_a_worker():
    main = subprocess.check_output(["systemctl", "show", "--value", "--property", "MainPID", UNIT], text=True).strip()
    workers = subprocess.check_output(["pgrep", "--parent", main], text=True).split()
    os.kill(int(workers[0]), signal.SIGKILL)


for _ in range(ROUNDS):
    run += "-"
    time.sleep(2.2)  # longer than nginx keeps idle connections
    end = time.monotonic() + 2
    threads = [threading.Thread(target=client, args=(number, end)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    while any(thread.is_alive() for thread in threads):
        kill_a_worker()
        # longer than any request takes, because no request is offered to a third worker
        time.sleep(0.6)
    for thread in threads:
        thread.join()

with open(SEEN, encoding="utf-8") as stream:
    seen = collections.Counter(line for line in stream if run[:-ROUNDS] in line)
print(json.dumps({"answers": answers, "often": max(seen.values())}))
