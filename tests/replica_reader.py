#!/usr/bin/env python3
"""replica_reader.py KIND FILE EXPECTED: a stock reader of a replica that checks each of its views.

A view must have the hash that EXPECTED names for its generation, and no smaller generation than the view before.
Before the first one the database may be empty.
KIND: fresh opens FILE for each view; cached keeps one connection and its statements; hold keeps each view for some
time and looks again; write opens FILE for writing, as most programs do, and reads only. Ends with its standard input;
its last line is {"views": N, "generation": N}, or the first view that was wrong.
"""
import json
import os
import pathlib
import select
import sqlite3
import sys
import time
import urllib.parse

from replica_oracle import content_hash


EMPTY = -1  # older than every generation


class Wrong(Exception):
    pass


def connect(path, mode):
    uri = f"file:{urllib.parse.quote(path)}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, cached_statements=500)


class Reader:
    def __init__(self, kind, path, expected):
        self.kind, self.path, self.expected = kind, path, expected
        self.connection, self.views, self.generation = None, 0, EMPTY

    def look(self):
        if not self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return EMPTY
        generation = self.connection.execute("SELECT n FROM generation").fetchone()[0]
        found = content_hash(self.connection)
        if self.expected.get(str(generation)) != found:
            raise Wrong(f"{self.kind}: generation {generation} has a content that it never had")
        return generation

    def view(self):
        if self.kind == "fresh" or self.connection is None:
            self.connection = connect(self.path, "rw" if self.kind == "write" else "ro")
        self.connection.execute("BEGIN")
        generation = self.look()
        if generation < self.generation:
            raise Wrong(f"{self.kind}: went back from generation {self.generation} to {generation}")
        if self.kind == "hold":
            until = time.monotonic() + float(os.environ.get("OFFPRINT_HOLD_S", "2"))
            while time.monotonic() < until and not ended(0.2):
                if self.look() != generation:
                    raise Wrong("hold: a view changed while it was held")
        self.connection.execute("COMMIT")
        if self.kind == "fresh":
            self.connection.close()
        self.generation = generation
        self.views += 1


def ended(seconds):
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main():
    reader = Reader(sys.argv[1], sys.argv[2], json.loads(pathlib.Path(sys.argv[3]).read_text()))
    while not os.path.exists(reader.path):
        if ended(0.01):
            print(json.dumps({"views": 0, "generation": 0}), flush=True)
            return
    try:
        while not ended(0.002):
            reader.view()
        reader.view()
        print(json.dumps({"views": reader.views, "generation": reader.generation}), flush=True)
    except (Wrong, sqlite3.Error) as error:
        print(json.dumps({"wrong": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
