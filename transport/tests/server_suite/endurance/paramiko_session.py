"""Moves files with paramiko's defaults: every line, `put LOCAL REMOTE`, `get REMOTE LOCAL` or empty, is answered with `done`."""

import sys

import paramiko

host, port, user, key, known_hosts = sys.argv[1:]
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.connect(host, int(port), user, key_filename=key, look_for_keys=False, allow_agent=False)
sftp = client.open_sftp()
actions = {"put": sftp.put, "get": sftp.get}
for line in sys.stdin:
    if line.strip():
        action, source, target = line.split()
        actions[action](source, target)
    print("done", flush=True)
client.close()
