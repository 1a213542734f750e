#!/usr/bin/env python3
"""tail_writer.py FILE SEED [truncates]: a program that knows nothing of Offprint, and writes as fast as it can.

Each commit raises the number in `state` by one, and what the other tables hold adds up to what `state` says. Between
commits it does what programs do: other settings, checkpoints of all kinds, VACUUM, closing and opening again. With
`truncates` it empties the -wal after each commit. It goes
on until its standard input ends, then writes one JSON object: the last number, the commits, what was busy.
"""
import json
import os
import random
import select
import sqlite3
import sys

TABLES = """
CREATE TABLE IF NOT EXISTS state(one INTEGER PRIMARY KEY CHECK(one = 1), number INTEGER, rows INTEGER, bytes INTEGER);
CREATE TABLE IF NOT EXISTS row(id INTEGER PRIMARY KEY, number INTEGER, content BLOB);
CREATE INDEX IF NOT EXISTS row_number ON row(number);
INSERT OR IGNORE INTO state VALUES(1, 0, 0, 0);
"""
SUMS = "UPDATE state SET number=?, rows=(SELECT count(*) FROM row), bytes=(SELECT coalesce(sum(length(content)),0) FROM row)"


class Writer:
    def __init__(self, path, seed, truncates):
        self.truncates = truncates
        self.path, self.random, self.busy, self.commits = path, random.Random(seed), {}, 0
        self.connection = None
        self.open()
        self.connection.executescript(TABLES)
        self.number = self.connection.execute("SELECT number FROM state").fetchone()[0]

    def open(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = sqlite3.connect(self.path, isolation_level=None, timeout=20)
        run = self.connection.execute
        run("PRAGMA journal_mode=WAL")
        run(f"PRAGMA synchronous={self.random.choice(['OFF', 'NORMAL', 'FULL'])}")
        run(f"PRAGMA wal_autocheckpoint={self.random.choice([0, 20, 1000])}")
        run(f"PRAGMA cache_size={self.random.choice([5, 50, 2000])}")

    def note_busy(self, what, is_busy):
        if is_busy:
            self.busy[what] = self.busy.get(what, 0) + 1

    def change(self):
        run, dice = self.connection.execute, self.random.random()
        if dice < 0.6:
            for _ in range(self.random.choice([1, 1, 1, 5, 50])):
                run("INSERT INTO row(number, content) VALUES(?, randomblob(?))",
                    (self.number + 1, self.random.choice([10, 100, 3000, 20000])))
        elif dice < 0.8:
            run("UPDATE row SET content=randomblob(length(content)) WHERE id % 17 = ?", (self.random.randrange(17),))
        elif dice < 0.9:
            run("DELETE FROM row WHERE id % 3 = ?", (self.random.randrange(3),))
        else:
            name = f"t{self.number}"
            run(f"CREATE TABLE {name}(a, b)")
            run(f"INSERT INTO {name} VALUES(1, 2)")
            run(f"DROP TABLE {name}")
        if run("SELECT count(*) FROM row").fetchone()[0] > 2000:
            run("DELETE FROM row WHERE id % 2 = 0")

    def commit(self):
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        self.change()
        if self.random.random() < 0.05:
            return run("ROLLBACK")
        run(SUMS, (self.number + 1,))
        run("COMMIT")
        self.number += 1
        self.commits += 1
        if self.truncates:
            self.note_busy("each", run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    def step(self):
        dice = self.random.random()
        if dice < 0.95:
            self.commit()
        elif dice < 0.98:
            mode = self.random.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
            self.note_busy(mode, self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0])
        elif dice < 0.985:
            self.connection.execute("VACUUM")
        else:
            self.open()


def main():
    writer = Writer(sys.argv[1], int(sys.argv[2]), "truncates" in sys.argv[3:])
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0] or os.read(0, 1):
        writer.step()
    writer.connection.close()
    print(json.dumps({"number": writer.number, "commits": writer.commits, "busy": writer.busy}), flush=True)


if __name__ == "__main__":
    main()
