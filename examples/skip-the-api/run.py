#!/usr/bin/env python3
"""Plays the story of README.md: a shop ships its data instead of answering requests for it."""
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = os.environ.get("OFFPRINT", "offprint")
ORDERS = int(os.environ.get("ORDERS", "20000"))
MERCHANTS, PRODUCTS = 200, 2000
ME = 7  # the merchant whose side is shown


class Shop:
    """A server of its own. It asks for tokens; the owner's may do everything."""

    def __init__(self, folder):
        self.folder = folder
        self.log = open(folder / "serve.log", "wb")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("OFFPRINT")}
        self.run("token", "keygen", folder / "signing.key")
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--data", folder / "data", "--listen", "127.0.0.1:0",
             "--auth-keys", folder / "signing.key.pub"],
            stdout=self.log, stderr=self.log, env=self.environment)
        address = re.compile(r"http://127\.0\.0\.1:\d+")  # it says where it listens
        wait(lambda: self.process.poll() is not None or address.search((folder / "serve.log").read_text()))
        self.url = address.search((folder / "serve.log").read_text())[0]
        self.environment["OFFPRINT_SERVER"] = self.url
        self.environment["OFFPRINT_TOKEN"] = self.token("*", "--admin", "--read", "--write", "--schema", "--subscribe",
                                                        "--verb", "publish")

    def token(self, database, *rights):
        return self.run("token", "create", "--key", self.folder / "signing.key", "--db", database, *rights).strip()

    def run(self, *arguments, **options):
        """What the program prints; its message when it fails with the exit code `fails`."""
        fails, token = options.get("fails", 0), options.get("token")
        environment = {**self.environment, **({"OFFPRINT_TOKEN": token} if token else {})}
        done = subprocess.run([PROGRAM, *map(str, arguments)], env=environment, capture_output=True, text=True,
                              input=options.get("stdin"), check=False)
        if done.returncode != fails:
            sys.exit(f"offprint {arguments[0]}: exit code {done.returncode}: {done.stderr}")
        return done.stderr if fails else done.stdout

    def sql(self, statements):
        return self.run("sql", "shop", stdin=statements)

    def follow(self, publication, file, token):
        """A live copy, from now on."""
        follower = subprocess.Popen([PROGRAM, "follow", f"{self.url}/db/shop/pub/{publication}", file],
                                    stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                                    env={**self.environment, "OFFPRINT_TOKEN": token})
        wait(file.exists)
        return follower


def wait(until, seconds=60):
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            sys.exit("it took too long")
        time.sleep(0.01)


def ask(file, statement, arguments=(), attach=None):
    """Rows of a file, read by the system's own SQLite."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    for name, other in (attach or {}).items():
        connection.execute(f"ATTACH 'file:{other}?mode=ro' AS {name}")
    rows = connection.execute(statement, arguments).fetchall()
    connection.close()
    return rows


def made_rows():
    """Orders as such a shop has them; the same each time."""
    rng = random.Random(1)
    yield "BEGIN;\n"
    for i in range(1, MERCHANTS + 1):
        yield f"INSERT INTO merchants VALUES ({i}, 'merchant {i}');\n"
    for i in range(1, PRODUCTS + 1):
        yield f"INSERT INTO products VALUES ({i}, {i % MERCHANTS + 1}, 'product {i}', {rng.randrange(100, 20000)});\n"
    orders, items = [], []
    for i in range(1, ORDERS + 1):
        merchant = rng.randrange(1, MERCHANTS + 1)
        day = f"2026-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
        status = rng.choices(["open", "paid", "sent"], [1, 4, 15])[0]
        orders.append(f"({i}, {merchant}, 'customer-{merchant}-{rng.randrange(500)}', '{rng.randrange(10**15, 10**16)}',"
                      f" '{day}', '{status}', {rng.randrange(500, 50000)})")
        for line in range(1, rng.randrange(2, 5)):
            items.append(f"({i}, {line}, {rng.randrange(1, PRODUCTS + 1)}, {rng.randrange(1, 9)})")
    for table, rows in (("orders", orders), ("items", items)):
        for start in range(0, len(rows), 500):
            yield f"INSERT INTO {table} VALUES\n" + ",\n".join(rows[start:start + 500]) + ";\n"
    yield "COMMIT;\n"


def warehouse(shop, folder):
    """Another team: gets what is paid and not sent, keeps its own columns beside it."""
    folder.mkdir()
    follower = shop.follow("warehouse@v1", folder / "shop.db", shop.token("shop/pub/warehouse", "--subscribe"))
    shutil.copy(HERE / "warehouse.toml", folder)
    own = sqlite3.connect(folder / "picking.db")
    own.execute("CREATE TABLE picks (order_id INT, line INT, shelf INT, picked INT NOT NULL DEFAULT 0,"
                " PRIMARY KEY (order_id, line))")
    own.close()
    shop.run("react", folder / "warehouse.toml", "--once")
    if shop.run("compose", folder / "warehouse.toml", "--check"):
        sys.exit("a line has no pick")
    count = shop.run("open", folder / "warehouse.toml", "SELECT count(*) FROM picking WHERE NOT picked").strip()
    shop.run("open", folder / "warehouse.toml", "UPDATE picking SET picked = 1 WHERE shelf = 3")
    refused = shop.run("open", folder / "warehouse.toml", "UPDATE picking SET quantity = 0", fails=1)
    print(f"warehouse: {count} lines to pick; changing a quantity: {refused.strip()}")
    return follower


def merchant(shop, folder):
    """A customer of the shop, with a token for his own part and his own program."""
    folder.mkdir()
    token = shop.token(f"shop/pub/merchant?id={ME}", "--subscribe")
    refused = shop.run("follow", f"{shop.url}/db/shop/pub/merchant@v1?id={ME + 1}", folder / "other.db", "--once",
                       token=token, fails=4)
    print("merchant: another one's part is refused" if refused else "")
    follower = shop.follow(f"merchant@v1?id={ME}", folder / "shop.db", token)
    ledger = sqlite3.connect(folder / "ledger.db")
    ledger.execute("CREATE TABLE budget (month TEXT PRIMARY KEY, cents INT)")
    ledger.executemany("INSERT INTO budget VALUES (?, 200000)", [(f"2026-{month:02d}",) for month in range(1, 13)])
    ledger.commit()
    ledger.close()
    return follower, token


BETTER_MONTHS = """SELECT count(*) FROM budget b JOIN
  (SELECT substr(day, 1, 7) AS month, sum(cents) AS cents FROM shop.daily GROUP BY 1) s USING (month)
  WHERE s.cents > b.cents"""


def better_months(folder):
    return ask(folder / "ledger.db", BETTER_MONTHS, attach={"shop": folder / "shop.db"})[0][0]


def change_of_the_schema(shop, folder, token):
    refused = shop.run("sql", "shop", "ALTER TABLE orders RENAME COLUMN status TO state", fails=1)
    print("shop: renaming alone is refused:", "merchant@v1" in refused or "warehouse@v1" in refused)
    shop.sql((HERE / "change.sql").read_text())
    shop.run("publish", "create", "shop", HERE / "merchant-v2.pub")
    follower = shop.follow(f"merchant@v2?id={ME}", folder / "shop-v2.db", token)
    shop.sql(f"UPDATE orders SET state = 'returned' WHERE id = (SELECT min(id) FROM orders WHERE merchant = {ME})")
    old, new = "SELECT id, status, total FROM orders ORDER BY id", "SELECT id, state, total_cents FROM orders ORDER BY id"

    def both_have_it():
        rows = ask(folder / "shop.db", old)
        return any(row[1] == "returned" for row in rows) and rows == ask(folder / "shop-v2.db", new)

    wait(both_have_it)
    print("merchant: v1 and v2 tell the same, each in its own words")
    return follower


def check(shop, folder):
    """A shipped file has the shop's figures, and nothing of anybody else."""
    counted, total = shop.run("sql", "shop", f"SELECT count(*), sum(total) FROM orders WHERE merchant = {ME}").split()
    [(have, sum_of_days)] = ask(folder / "shop.db", "SELECT sum(orders), sum(cents) FROM daily")
    if (int(counted), int(total)) != (have, sum_of_days):
        sys.exit(f"{have} orders of {sum_of_days}, and the shop has {counted} of {total}")
    others = f"customer-{ME + 1}-".encode()
    if others in (folder / "shop.db").read_bytes() or any(
            column[1] == "card" for column in ask(folder / "shop.db", "PRAGMA table_info(orders)")):
        sys.exit("there is more in the file than was published")
    print(f"merchant: {have} orders, {sum_of_days / 100:.2f} in all; the file has {(folder / 'shop.db').stat().st_size >> 10} KiB")


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="skip-the-api-"))
    running = []
    try:
        shop = Shop(folder)
        running.append(shop.process)
        shop.run("db", "create", "shop")
        shop.sql((HERE / "service.sql").read_text())
        (folder / "rows.sql").write_text("".join(made_rows()))
        shop.run("db", "import", "shop", folder / "rows.sql")
        for publication in ("warehouse.pub", "merchant.pub"):
            print("shop:", shop.run("publish", "create", "shop", HERE / publication).strip())
        running.append(warehouse(shop, folder / "warehouse"))
        follower, token = merchant(shop, folder / "merchant")
        running.append(follower)
        check(shop, folder / "merchant")
        print("merchant:", better_months(folder / "merchant"), "months of 12 were better than planned")
        running.append(change_of_the_schema(shop, folder / "merchant", token))
        check(shop, folder / "merchant")
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
