#!/usr/bin/env python3
"""Two versions of a service at work on one database, each through a node of its own, while users move between them.

    python3 blue_green.py BLUE_URL GREEN_URL [DATABASE]

Blue is the version that runs, green the one that comes: it needs a column more. The schema is made so that both can use
it, users are moved to green one after the other, and one is moved back. Each carries the bookmark of what he has seen,
as a cookie would: whichever version answers him sees what he did before. docs/guides/blue-green.md
"""
import json
import sys
import urllib.error
import urllib.request


class Node:
    def __init__(self, url, database):
        self.url, self.database = url.rstrip("/"), database

    def query(self, session, *statements):
        """One transaction. `session` is what the user carries: the newest state that he has seen."""
        body = [{"sql": sql, "args": list(arguments)} for sql, *arguments in statements]
        request = urllib.request.Request(f"{self.url}/db/{self.database}/query", json.dumps(body).encode())
        if session.get("bookmark"):
            request.add_header("Offprint-Bookmark", session["bookmark"])
        with urllib.request.urlopen(request, timeout=40) as answer:
            result = json.load(answer)
        session["bookmark"] = max(session.get("bookmark", ""), result["bookmark"])
        return [each["rows"] for each in result["results"]]


class Blue:
    """The version that runs. It names the columns that it knows, so that it survives new ones."""

    def __init__(self, node):
        self.node = node

    def order(self, session, user, item, cents):
        self.node.query(session, ("INSERT INTO orders(user, item, cents) VALUES(?, ?, ?)", user, item, cents))

    def basket(self, session, user):
        rows, = self.node.query(session, ("SELECT item FROM orders WHERE user = ? ORDER BY id", user))
        return [item for item, in rows]


class Green(Blue):
    """The version that comes: an order has a currency."""

    def order(self, session, user, item, cents, currency="EUR"):
        self.node.query(session, ("INSERT INTO orders(user, item, cents, currency) VALUES(?, ?, ?, ?)",
                                  user, item, cents, currency))


def create(node):
    request = urllib.request.Request(f"{node.url}/v1/databases", json.dumps({"name": node.database}).encode())
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it is there already
            raise


def main():
    database = sys.argv[3] if len(sys.argv) > 3 else "baskets"
    blue_node, green_node = Node(sys.argv[1], database), Node(sys.argv[2], database)
    blue, green = Blue(blue_node), Green(green_node)
    create(blue_node)
    operator = {}
    blue_node.query(operator, ("CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, user TEXT NOT NULL, item TEXT NOT NULL, "
                               "cents INTEGER NOT NULL)",), ("DELETE FROM orders",))
    users = {f"user-{n}": dict(operator) for n in range(20)}
    expected = {user: [] for user in users}

    def order(version, user, item):
        version.order(users[user], user, item, 100)
        expected[user].append(item)
        # Right after it, and whoever answers.
        for each in (version, blue, green):
            seen = each.basket(users[user], user)
            assert seen == expected[user], f"{user}: {seen} instead of {expected[user]}"

    for user in users:
        order(blue, user, "pencil")
    # Expand: what is added has a default, so that blue goes on without knowing of it.
    green_node.query(operator, ("ALTER TABLE orders ADD COLUMN currency TEXT NOT NULL DEFAULT 'EUR'",))
    order(blue, "user-0", "ruler")
    # One user after the other is moved; all others go on where they are.
    for moved in users:
        order(green, moved, "ink")
        for user in list(users)[-2:]:
            order(blue, user, "paper")
    # Something is wrong with green: back, without losing anything that was done there.
    order(blue, "user-0", "eraser")
    total, = green_node.query(dict(operator), ("SELECT count(*), count(DISTINCT user) FROM orders WHERE currency = 'EUR'",))
    count, distinct = total[0]
    assert count == sum(map(len, expected.values())), total
    print(f"{count} orders of {distinct} users, through two versions: each saw all that he did")


if __name__ == "__main__":
    main()
