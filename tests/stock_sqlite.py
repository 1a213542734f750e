#!/usr/bin/env python3
"""stock_sqlite.py FILE URI-OPTIONS: one connection of the system's SQLite to FILE.

Each line of standard input is a statement as a JSON string; its rows, or "error: ...", are written as one line. Python
keeps prepared statements, so that a text that comes again runs as it was prepared.
"""
import json
import sqlite3
import sys
import urllib.parse


def plain(value):
    return value.hex() if isinstance(value, bytes) else value


def main():
    uri = f"file:{urllib.parse.quote(sys.argv[1])}?{sys.argv[2]}"
    connection = None
    for line in sys.stdin:
        try:
            if connection is None:
                connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
            rows = [[plain(value) for value in row] for row in connection.execute(json.loads(line))]
            answer = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        except sqlite3.Error as error:
            answer = f"error: {error}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
