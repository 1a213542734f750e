#!/usr/bin/env python3
"""Orders over HTTP: create a database, write, and read one's own writes.

    offprint serve &
    python3 orders.py [http://127.0.0.1:8080]
"""
import json
import sys
import urllib.error
import urllib.request

SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"


class Database:
    """One database. Remembers the newest state it has seen, so that no later read shows an older one."""

    def __init__(self, name):
        self.url, self.bookmark = f"{SERVER}/db/{name}/query", ""

    def query(self, *statements):
        """Each statement is a text, or (text, arguments). Several are one transaction, all or nothing."""
        body = [{"sql": s} if isinstance(s, str) else {"sql": s[0], "args": list(s[1])} for s in statements]
        request = urllib.request.Request(self.url, json.dumps(body[0] if len(body) == 1 else body).encode())
        if self.bookmark:
            request.add_header("Offprint-Bookmark", self.bookmark)
        with urllib.request.urlopen(request) as answer:
            result = json.load(answer)
        self.bookmark = max(self.bookmark, result["bookmark"])
        return [r["rows"] for r in result["results"]]


def create(name):
    request = urllib.request.Request(f"{SERVER}/v1/databases", json.dumps({"name": name}).encode())
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it is there already
            raise


def main():
    create("shop/orders")
    orders = Database("shop/orders")
    orders.query("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, n INT CHECK (n > 0))")
    orders.query(("INSERT INTO orders (item, n) VALUES (?, ?)", ["pencil", 3]))
    # All of it, or nothing.
    try:
        orders.query(("INSERT INTO orders (item, n) VALUES (?, ?)", ["ink", 1]),
                     ("INSERT INTO orders (item, n) VALUES (?, ?)", ["paper", -5]))
    except urllib.error.HTTPError as error:
        print("refused:", json.load(error)["error"]["message"])
    for item, n in orders.query("SELECT item, sum(n) FROM orders GROUP BY item")[0]:
        print(f"{n} × {item}")


if __name__ == "__main__":
    main()
