"""A program that knows nothing of Offprint writes its own file as fast as it can; `offprint serve --tail` follows it and
archives it in a stock S3 service behind a proxy that fails, `offprint follow` keeps a replica. Program, server and
follower are killed again and again. Whoever reads meanwhile, here, in the replica, or in what is restored of the archive,
sees a state that the program committed, and a later one than before; at the end all of them have the program's file.
OFFPRINT is the program; SEED repeats a run. OFFPRINT_TEST_SECONDS: how long the program writes."""
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from s3_test import BUCKET, gateway
from server_test import COMPACTING, FAULTS, FAULTS_SHARE, PROGRAM, SECONDS, SEED, FaultProxy, Server

WRITER = pathlib.Path(__file__).parents[2] / "tail_writer.py"
# Holds in every committed state of tail_writer.py.
LOOK = ("SELECT number, rows = (SELECT count(*) FROM row) AND bytes = (SELECT coalesce(sum(length(content)), 0) FROM row) "
        "FROM state")
KEPT_S = 240  # so long each moment is kept by itself, less than the server's 5 minutes


def pages(path):
    """Of a file that nobody writes: its pages, of page 1 what SQLite does not count there."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(pathlib.Path(path).read_bytes())
    for first, count in ((24, 4), (40, 4), (92, 8)):
        content[first:first + count] = bytes(count)
    return [bytes(content[at:at + size]) for at in range(0, len(content), size)]


class Child:
    """A program that may be killed at any moment."""

    def __init__(self, log, *command, **options):
        self.log, self.command, self.options, self.process = log, [str(each) for each in command], options, None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, **{"stdout": log, **self.options})

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


class TailedAndArchived(unittest.TestCase):
    said = ""

    @classmethod
    def tearDownClass(cls):
        print(cls.said)

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="offprint-tail-s3-"))
        self.service = gateway()
        self.proxy = FaultProxy(("127.0.0.1", self.service.port), SEED)
        self.file, self.replica = self.folder / "program.db", self.folder / "replica.db"
        place = f"s3://{BUCKET}/tail{SEED}"
        self.direct = f"{place}/orders?endpoint=http://127.0.0.1:{self.service.port}"
        self.server = Server(self.folder, f"{place}?endpoint=http://127.0.0.1:{self.proxy.port}", waits=False)
        self.server.options = ("--tail", f"orders={self.file}", *COMPACTING)
        self.writer = Child(self.folder / "writer.log", sys.executable, WRITER, self.file, SEED, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
        self.follower = Child(self.folder / "follower.log", PROGRAM, "follow",
                              f"http://127.0.0.1:{self.server.port}/db/orders", self.replica)
        self.stopping, self.kills, self.failures = threading.Event(), {}, []
        self.seen = {"server": 0, "replica": 0, "archive": 0}
        self.looks, self.moments = dict.fromkeys(self.seen, 0), []
        self.exact = 0

    def tearDown(self):
        self.stopping.set()
        for each in (self.writer, self.follower):
            each.kill()
        if self.server.process is not None:
            self.server.kill()
        self.proxy.close()
        self.service.stop()
        if not self.failures:
            shutil.rmtree(self.folder)

    def note(self, where, number, holds, detail=None):
        if holds != 1 or number < self.seen[where]:
            self.failures.append((where, number, holds, self.seen[where], detail))
        self.seen[where] = max(self.seen[where], number)
        self.looks[where] += 1

    def start_writer(self):
        self.writer.start()
        self.assertEqual(self.writer.process.stdout.readline(), b"ready\n")

    def kill_again_and_again(self):
        dice = random.Random(SEED + 1)
        try:
            while not self.stopping.wait(dice.uniform(0.5, 4)):
                which = dice.choice(("writer", "server", "server", "follower"))
                self.kills[which] = self.kills.get(which, 0) + 1
                getattr(self, which).kill()
                self.stopping.wait(dice.choice((0, 0, 0.5)))
                self.start_writer() if which == "writer" else getattr(self, which).start()
        except (RuntimeError, AssertionError) as error:
            self.failures.append(("restart", str(error)))

    def look_at_server(self):
        done = self.server.call("POST", "/db/orders/query", {"sql": LOOK})
        rows = json.loads(done[0])["results"][0]["rows"] if done else ()
        for number, holds in rows:
            self.note("server", number, holds, done[1])
            self.moments.append((time.monotonic(), done[1], number))

    def look_at_replica(self):
        if not self.replica.exists():
            return
        with sqlite3.connect(f"file:{self.replica}?mode=ro", uri=True, timeout=10) as connection:
            for number, holds in connection.execute(LOOK).fetchall():
                self.note("replica", number, holds)

    def restore(self, moment):
        file = self.folder / "restored.db"
        options = ["--at", moment] if moment else []
        done = self.server.run("restore", self.direct, file, "--force", *options)
        if done.returncode != 0:
            return done.stderr
        with sqlite3.connect(file) as connection:
            sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
            row = connection.execute(LOOK).fetchone() if connection.execute(
                "SELECT 1 FROM sqlite_schema WHERE name='state'").fetchone() else (0, 1)
        return sound if sound != "ok" else row

    def look_at_archive(self, dice):
        """The newest state; then one that was seen, exactly, where the archive keeps it by itself."""
        newest = self.restore(None)
        if isinstance(newest, str):
            if "no archive" not in newest:
                self.failures.append(("restore", newest))
            return
        self.note("archive", *newest)
        young = [each for each in self.moments if time.monotonic() - each[0] < KEPT_S]
        _, bookmark, number = dice.choice(young)
        there = self.restore(bookmark)
        if isinstance(there, str):
            if not any(each in there for each in ("only together with others", "the archive ends at")):
                self.failures.append(("restore at", bookmark, there))
        else:
            self.exact += 1
            if tuple(there) != (number, 1):
                self.failures.append(("restore at", bookmark, there, number))

    def has_met_all(self):
        return self.kills.get("server", 0) > 0 and self.exact > 0 and all(self.proxy.counts.get(each, 0) for each in FAULTS)

    def look_while_it_writes(self):
        """Longer than it was told when chance has left something out."""
        dice, deadline, next_restore = random.Random(SEED + 2), time.monotonic() + SECONDS, time.monotonic() + 3
        while not self.failures and time.monotonic() < deadline + (0 if self.has_met_all() else 120):
            self.look_at_server()
            self.look_at_replica()
            if time.monotonic() > next_restore and self.moments:
                self.look_at_archive(dice)
                next_restore = time.monotonic() + max(1.0, SECONDS / 200)
            time.sleep(0.05)

    def expect_all_to_have(self, number):
        deadline = time.monotonic() + 120
        while min(self.seen["server"], self.seen["replica"]) < number and time.monotonic() < deadline:
            self.look_at_server()
            self.look_at_replica()
            time.sleep(0.1)
        while "offprint_archive_databases_behind 0" not in (self.server.call("GET", "/metrics") or ("",))[0]:
            self.assertLess(time.monotonic(), deadline, "the archive is behind")
            time.sleep(0.1)
        self.assertEqual((self.seen["server"], self.seen["replica"]), (number, number))
        self.assertEqual(self.restore(None), (number, 1))
        for each in (self.server, self.follower):
            each.kill()
        expected = pages(self.file)
        self.assertEqual(pages(self.replica), expected)
        self.assertEqual(pages(self.folder / "restored.db"), expected)

    def test_everything_shows_what_the_program_committed(self):
        self.start_writer()
        self.server.start()
        self.follower.start()
        self.proxy.share = FAULTS_SHARE
        killer = threading.Thread(target=self.kill_again_and_again)
        killer.start()
        self.look_while_it_writes()
        self.stopping.set()
        killer.join()
        self.proxy.share = 0
        self.assertEqual(self.failures, [], SEED)
        said, _ = self.writer.process.communicate(timeout=60)
        self.expect_all_to_have(json.loads(said)["number"])
        self.assertEqual(self.failures, [], SEED)
        proven = self.server.run("verify", self.direct, "--scratch", self.folder)
        self.assertEqual(proven.returncode, 0, proven.stdout + proven.stderr)
        self.assertTrue(self.has_met_all(), (self.kills, self.exact, self.proxy.counts))
        TailedAndArchived.said = (f"{self.seen['archive']} commits, kills {self.kills}, looks {self.looks}, {self.exact} "
                                  f"earlier moments restored exactly, {self.proxy.counts}")


if __name__ == "__main__":
    print(f"SEED={SEED}", flush=True)
    unittest.main(verbosity=2)
