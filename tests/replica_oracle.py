#!/usr/bin/env python3
"""replica_oracle.py FOLDER SEED COUNT PAGE_SIZE AUTO_VACUUM: a random history of a database, and what it must look like.

Writes FOLDER/requests.jsonl, one body of POST /query a line: line N leaves generation N, or the generation before it
where it is a single statement (VACUUM). Writes FOLDER/expected.json: the content's hash at each generation, found by
running the same history on the system's SQLite. Nothing in it depends on time or chance.
"""
import hashlib
import json
import pathlib
import random
import sqlite3
import sys

NAMES = ["alpha", "beta", "gamma", "delta"]


def content_hash(connection):
    """Over the schema, every row of every table but the shadows of the FTS5 one, and user_version."""
    digest = hashlib.sha256()
    tables = []
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"):
        digest.update(repr((kind, name, sql)).encode())
        if kind == "table" and not name.startswith("sqlite_") and not name.startswith("words_"):
            tables.append(name)
    for table in tables:
        cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY 1')
        digest.update(repr([column[0] for column in cursor.description]).encode())
        for row in cursor:
            digest.update(repr(row).encode())
    digest.update(repr(connection.execute("PRAGMA user_version").fetchone()).encode())
    return digest.hexdigest()


class History:
    def __init__(self, rng):
        self.rng = rng
        self.columns = {}  # table -> names of its columns besides id
        self.next_table = 0
        self.indexes = 0

    def value(self):
        kind = self.rng.randrange(10)
        if kind < 4:
            return str(self.rng.randrange(-10**6, 10**12))
        if kind < 7:
            return "'" + "".join(self.rng.choice("abcdefgh öß'") for _ in range(self.rng.randrange(40))).replace("'", "''") + "'"
        if kind == 7:
            return "NULL"
        if kind == 8:
            return f"x'{self.rng.randbytes(self.rng.choice([1, 100, 1500])).hex()}'"
        return f"zeroblob({self.rng.choice([10, 300, 3000, 20000])})"

    def create(self):
        table = f"t{self.next_table}"
        self.next_table += 1
        self.columns[table] = self.rng.sample(NAMES, self.rng.randrange(1, 4))
        suffix = self.rng.choice(["", "", " STRICT", " WITHOUT ROWID"])
        kind = " ANY" if suffix == " STRICT" else ""
        yield f"CREATE TABLE {table} (id INTEGER PRIMARY KEY{''.join(f', {c}{kind}' for c in self.columns[table])}){suffix}"

    def change_schema(self):
        if len(self.columns) < 2 or (self.rng.random() < 0.3 and len(self.columns) < 6):
            yield from self.create()
            return
        table = self.rng.choice(sorted(self.columns))
        what = self.rng.randrange(5)
        if what == 0:
            del self.columns[table]
            yield f"DROP TABLE {table}"
        elif what == 1:
            column = f"extra{self.rng.randrange(10**6)}"
            kind = " ANY"  # any affinity of none, and allowed in a STRICT table
            self.columns[table].append(column)
            yield f"ALTER TABLE {table} ADD COLUMN {column}{kind}"
        elif what == 2 and len(self.columns[table]) > 1:
            column = self.columns[table].pop(0)
            yield from [f"DROP INDEX IF EXISTS i_{table}_{column}", f"ALTER TABLE {table} DROP COLUMN {column}"]
        elif what == 3:
            old = self.rng.randrange(len(self.columns[table]))
            new = f"renamed{self.rng.randrange(10**6)}"
            yield f"DROP INDEX IF EXISTS i_{table}_{self.columns[table][old]}"
            yield f"ALTER TABLE {table} RENAME COLUMN {self.columns[table][old]} TO {new}"
            self.columns[table][old] = new
        else:
            column = self.rng.choice(self.columns[table])
            yield f"CREATE INDEX IF NOT EXISTS i_{table}_{column} ON {table} ({column})"

    def change_rows(self):
        table = self.rng.choice(sorted(self.columns))
        columns = self.columns[table]
        what = self.rng.randrange(8)
        if what < 4:
            for _ in range(self.rng.choice([1, 1, 3, 40])):
                values = ", ".join(self.value() for _ in columns)
                yield (f"INSERT INTO {table} (id, {', '.join(columns)}) VALUES ({self.rng.randrange(1, 400)}, {values}) "
                       f"ON CONFLICT (id) DO UPDATE SET {columns[0]} = excluded.{columns[0]}")
        elif what < 6:
            low = self.rng.randrange(400)
            yield f"UPDATE {table} SET {self.rng.choice(columns)} = {self.value()} WHERE id BETWEEN {low} AND {low + 30}"
        elif what == 6:
            low = self.rng.randrange(400)
            yield f"DELETE FROM {table} WHERE id BETWEEN {low} AND {low + 60}"
        else:
            yield f"PRAGMA user_version = {self.rng.randrange(1000)}"

    def search(self):
        if self.rng.random() < 0.7:
            yield f"INSERT INTO words (body) VALUES ('word{self.rng.randrange(50)} and word{self.rng.randrange(50)}')"
        else:
            yield f"DELETE FROM words WHERE rowid % 7 = {self.rng.randrange(7)}"

    def rolled_back(self):
        table = self.rng.choice(sorted(self.columns))
        yield from ["SAVEPOINT s", f"DELETE FROM {table}", "ROLLBACK TO s", "RELEASE s"]

    def transaction(self):
        roll = self.rng.random()
        if not self.columns or roll < 0.12:
            yield from self.change_schema()
        for _ in range(self.rng.randrange(1, 4)):
            if not self.columns:
                return
            roll = self.rng.random()
            yield from self.search() if roll < 0.1 else self.rolled_back() if roll < 0.15 else self.change_rows()


def main():
    folder, seed, count, page_size, auto_vacuum = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:6])
    history = History(random.Random(seed))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
    first = ["CREATE TABLE generation (n INTEGER PRIMARY KEY)", "INSERT INTO generation VALUES (0)",
             "CREATE VIRTUAL TABLE words USING fts5(body)"]
    generation, expected, requests = 0, {}, []
    while generation < count:
        single = generation > 0 and history.rng.random() < 0.01
        if single:
            requests.append({"sql": "VACUUM"})
            continue
        generation += 1
        statements = (first if generation == 1 else []) + list(history.transaction())
        statements.append(f"UPDATE generation SET n = {generation}")
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute("COMMIT")
        requests.append(statements)
        expected[generation] = content_hash(connection)
    (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
