#!/usr/bin/env python3
"""row_watcher.py FILE: a stock reader of a server's own file.

Reads the table `w` again and again until its standard input ends, then writes one JSON object: for each client the
greatest seq that it ever saw.
"""
import json
import os
import select
import sqlite3
import sys
import urllib.parse


def main():
    uri = f"file:{urllib.parse.quote(sys.argv[1])}?mode=ro"
    seen, reads = {}, 0
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0.2)
    while not select.select([sys.stdin], [], [], 0.001)[0] or os.read(0, 1):
        try:
            for client, seq in connection.execute("SELECT client, max(seq) FROM w GROUP BY client"):
                seen[client] = max(seen.get(client, 0), seq)
            reads += 1
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
    print(json.dumps({"reads": reads, "seen": seen}), flush=True)


if __name__ == "__main__":
    main()
