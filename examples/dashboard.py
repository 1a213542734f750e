#!/usr/bin/env python3
"""Figures from a replica, without asking the server anything.

    offprint follow http://127.0.0.1:8080/db/shop/orders orders.db &
    python3 dashboard.py orders.db [--once]

The file is an ordinary SQLite database that changes by itself. Every transaction of ours sees one state of it.
"""
import sqlite3
import sys
import time
import urllib.parse


def main():
    connection = sqlite3.connect(f"file:{urllib.parse.quote(sys.argv[1])}?mode=ro", uri=True, isolation_level=None)
    seen = None
    while True:
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != seen:  # somebody committed
            seen = version
            connection.execute("BEGIN")
            orders, pieces = connection.execute("SELECT count(*), coalesce(sum(n), 0) FROM orders").fetchone()
            top = connection.execute("SELECT item FROM orders GROUP BY item ORDER BY sum(n) DESC LIMIT 1").fetchone()
            connection.execute("COMMIT")
            print(f"{orders} orders, {pieces} pieces; most of all {top[0] if top else 'nothing yet'}", flush=True)
        if "--once" in sys.argv:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
