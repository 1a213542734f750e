"""A whole server whose archive is in a stock S3 service, behind a proxy that does what networks and services do: it
answers SlowDown, does not answer, cuts uploads and answers in half, claims another time. The server is killed again and
again meanwhile. Every commit that was acknowledged as archived can be restored afterwards, exactly as it was then; where
moments grow old within seconds, as exactly as the settings promise for its age.
OFFPRINT is the program; SEED repeats a run. OFFPRINT_TEST_SECONDS: how long each test writes, on each service."""
import datetime
import email.utils
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

from s3_test import BUCKET, ID, SECRET, client, free_port, gateway, moto

PROGRAM = os.environ["OFFPRINT"]
SECONDS = float(os.environ.get("OFFPRINT_TEST_SECONDS", "15"))
IS_LONG = "OFFPRINT_TEST_SECONDS" in os.environ
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))
KILLS_EVERY = (1.0, 4.0)
# Objects are put together again and again; or all that Offprint does in a month, in seconds.
COMPACTING = ("--archive-windows-ms", "1000,4000,16000")
WINDOWS_S, KEEP_S, RETENTION_S = (0.4, 1.6, 6.4), (2.0, 4.0, 6.0), 8.64
AGEING = ("--archive-windows-ms", ",".join(str(round(each * 1000)) for each in WINDOWS_S),
          "--archive-keep-ms", ",".join(str(round(each * 1000)) for each in KEEP_S),
          "--archive-snapshots-ms", "2000", "--archive-retention-days", str(RETENTION_S / 86400))
FAULTS_SHARE = 0.12
FAULTS = ("slow_down", "silence", "half_upload", "half_answer", "skew")


class FaultProxy:
    """Passes requests of HTTP/1.1 on, one a connection, and does something else to a part of them."""

    def __init__(self, target, seed):
        self.target, self.random, self.share, self.counts = target, random.Random(seed), 0.0, {}
        self.lock, self.refusal = threading.Lock(), None
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self):
        self.listener.close()

    def next_fault(self):
        with self.lock:
            fault = self.random.choice(FAULTS) if self.random.random() < self.share else "none"
            self.counts[fault] = self.counts.get(fault, 0) + 1
            return fault

    def serve(self, connection):
        with connection:
            try:
                self.pass_on(connection, self.next_fault())
            except OSError:
                pass

    @staticmethod
    def read_head(connection):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                raise OSError("closed")
            head += piece
        head, rest = head.split(b"\r\n\r\n", 1)
        return head.split(b"\r\n"), rest

    def read_request(self, connection):
        lines, body = self.read_head(connection)
        fields = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[1].strip() for line in lines[1:]}
        if fields.get(b"expect", b"").lower() == b"100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = int(fields.get(b"content-length", b"0"))
        while len(body) < size:
            piece = connection.recv(65536)
            if not piece:
                raise OSError("closed")
            body += piece
        dropped = (b"expect", b"connection")
        kept = [line for line in lines if line.split(b":", 1)[0].lower() not in dropped]
        return b"\r\n".join([*kept, b"Connection: close", b"", b""]), body

    @staticmethod
    def refuse(connection, status, code, date=None):
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
        connection.sendall(f"HTTP/1.1 {status} {code}\r\nDate: {date or email.utils.formatdate(usegmt=True)}\r\n"
                           f"Content-Type: application/xml\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                           f"{text}".encode())

    def pass_on(self, connection, fault):
        head, body = self.read_request(connection)
        for refusal, status, code in RefusedServer.REFUSALS:
            is_write = not head.startswith((b"GET", b"HEAD"))
            if refusal == self.refusal and (is_write or refusal == "revoked"):
                return self.refuse(connection, status, code)
        if fault == "slow_down":
            return self.refuse(connection, 503, "SlowDown")
        if fault == "skew":  # who believes it signs with a time that the service then refuses
            there = email.utils.formatdate(time.time() + 1800, usegmt=True)
            return self.refuse(connection, 403, "RequestTimeTooSkewed", there)
        if fault == "silence":
            return time.sleep(0.5)
        with socket.create_connection(self.target, timeout=30) as upstream:
            if fault == "half_upload":
                upstream.sendall(head + body[:len(body) // 2])
                return None
            upstream.sendall(head + body)
            answer = b""
            while piece := upstream.recv(65536):
                answer += piece
        if fault == "half_answer":
            answer = answer[:len(answer) // 2]
        connection.sendall(answer)
        return None


class Server:
    """`offprint serve`, which may be killed at any moment."""

    def __init__(self, folder, archive, waits=True):
        self.folder, self.archive, self.port, self.options = folder, archive, free_port(), ()
        self.waiting = ("--archive-wait", "--archive-wait-ms", "5000") if waits else ()
        self.lock, self.process = threading.Lock(), None

    def environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**kept, "HOME": "/nonexistent", "AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET}

    def start(self):
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--data", self.folder / "data", "--listen", f"127.0.0.1:{self.port}", "--archive",
                 self.archive, "--archive-sync-ms", "0", *self.waiting, *self.options],
                stdout=log, stderr=log, env=self.environment())
        deadline = time.monotonic() + 60
        while self.call("GET", "/health?ready=1") is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "server.log").read_text()[-3000:])
            time.sleep(0.05)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method, path, body=None):
        """The answer and its bookmark; nothing unless it is a success."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read().decode(), answer.headers.get("Offprint-Bookmark")
        except (OSError, urllib.error.URLError, ValueError):
            return None

    def run(self, *arguments):
        return subprocess.run([PROGRAM, *map(str, arguments)], env=self.environment(), capture_output=True, text=True,
                              timeout=300, check=False)


class AnyServer:
    """Subclasses have `service` with its port."""
    said = ""

    def setUp(self):
        self.seed = SEED
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="offprint-s3-server-"))
        self.proxy = FaultProxy(("127.0.0.1", self.service.port), self.seed)
        self.place = f"s3://{BUCKET}/node{self.seed}"
        self.server = Server(self.folder, f"{self.place}?endpoint=http://127.0.0.1:{self.proxy.port}")
        self.direct = f"{self.place}/orders?endpoint=http://127.0.0.1:{self.service.port}"
        self.stopping = threading.Event()

    def tearDown(self):
        self.stopping.set()
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.kill()
        self.proxy.close()
        shutil.rmtree(self.folder)

    def kill_again_and_again(self):
        dice = random.Random(self.seed + 1)
        while not self.stopping.wait(dice.uniform(*KILLS_EVERY)):
            self.server.kill()
            self.server.start()
            self.kills += 1

    def has_met_all(self, promised):
        return self.kills > 1 and len(promised) > 20 and all(self.proxy.counts.get(each, 0) > 1 for each in FAULTS)

    def write(self):
        """What each acknowledged commit left behind, by its bookmark. Longer than told when chance has left something out."""
        promised, number = {}, 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline + (0 if self.has_met_all(promised) else 120):
            number += 1
            done = self.server.call("POST", "/db/orders/query",
                                    {"sql": f"INSERT INTO t VALUES({number}, hex(randomblob(2000)))"})
            if done is None:
                time.sleep(0.02)  # it is being started, or the archive did not have it in time
                continue
            numbers = json.loads(done[0])  # it is the newest state: nobody else writes
            self.assertNotIn("error", numbers)
            promised[done[1]] = number
        return promised

    def wait_for_archive(self):
        deadline = time.monotonic() + 120
        while "offprint_archive_databases_behind 0" not in (self.server.call("GET", "/metrics") or ("",))[0]:
            self.assertLess(time.monotonic(), deadline, "the archive is behind")
            time.sleep(0.1)

    def restored(self, moment):
        file = self.folder / "restored.db"
        options = ["--at", moment] if moment else []
        done = self.server.run("restore", self.direct, file, "--force", *options)
        self.assertEqual(done.returncode, 0, (moment, done.stdout, done.stderr, self.seed))
        with sqlite3.connect(file) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone()[0], "ok")
            return {row[0]: row[1] for row in connection.execute("SELECT i, v FROM t")}

    def test_what_was_promised_can_be_restored(self):
        self.kills = 0
        self.server.options = COMPACTING
        self.server.start()
        self.assertIsNotNone(self.server.call("POST", "/v1/databases", {"name": "orders"}))
        made = self.server.call("POST", "/db/orders/query", {"sql": "CREATE TABLE t(i INTEGER PRIMARY KEY, v)"})
        self.assertIsNotNone(made)
        self.proxy.share = FAULTS_SHARE
        killer = threading.Thread(target=self.kill_again_and_again)
        killer.start()
        promised = self.write()
        self.stopping.set()
        killer.join()
        self.proxy.share = 0
        self.assertTrue(self.has_met_all(promised), (self.kills, len(promised), self.proxy.counts))
        self.wait_for_archive()
        self.server.kill()
        newest = self.restored(None)
        numbers = sorted(promised.values())
        self.assertEqual([each for each in numbers if each not in newest], [])
        for bookmark, number in random.Random(self.seed).sample(sorted(promised.items()), min(40, len(promised))):
            # Commits without an answer may be there, too; those that came later are not.
            there = self.restored(bookmark)
            self.assertEqual(there, {i: v for i, v in newest.items() if i <= number}, bookmark)
        proven = self.server.run("verify", self.direct, "--scratch", self.folder)
        self.assertEqual(proven.returncode, 0, proven.stdout + proven.stderr)
        AnyServer.said = f"{len(promised)} promised, {self.kills} kills, {self.proxy.counts}"


class RefusedServer(AnyServer):
    """Keys that were revoked, a bucket that only lets read, one that is full: the database goes on, the log says why
    nothing is archived, and nothing is missing when it is over."""
    REFUSALS = (("revoked", 403, "InvalidAccessKeyId"), ("read_only", 403, "AccessDenied"),
                ("full", 507, "InsufficientStorage"))

    def metric(self, name):
        text = (self.server.call("GET", "/metrics") or ("",))[0]
        return int(re.search(rf"^offprint_{name} (\d+)$", text, re.MULTILINE).group(1))

    def wait_until(self, what, holds):
        deadline = time.monotonic() + 60
        while not holds():
            self.assertLess(time.monotonic(), deadline, (what, (self.folder / "server.log").read_text()[-2000:]))
            time.sleep(0.05)

    def test_refusals_stop_nothing_and_heal(self):
        self.server.waiting = ()
        self.server.start()
        self.assertIsNotNone(self.server.call("POST", "/v1/databases", {"name": "orders"}))
        number, moments = 0, {}
        self.assertIsNotNone(self.server.call("POST", "/db/orders/query", {"sql": "CREATE TABLE t(i, v)"}))
        for refusal, _, code in self.REFUSALS:
            self.wait_for_archive()
            failures = self.metric("archive_failures_total")
            self.proxy.refusal = refusal
            for _ in range(20):
                number += 1
                done = self.server.call("POST", "/db/orders/query", {"sql": f"INSERT INTO t VALUES({number}, 'x')"})
                self.assertIsNotNone(done, refusal)
                moments[done[1]] = number
                time.sleep(0.02)
            self.wait_until(refusal, lambda: self.metric("archive_failures_total") > failures)
            self.assertEqual(self.metric("archive_databases_behind"), 1, refusal)
            self.wait_until(code, lambda: code in (self.folder / "server.log").read_text())
            self.proxy.refusal = None
        self.wait_for_archive()
        self.server.kill()
        for bookmark, number in random.Random(self.seed).sample(sorted(moments.items()), 8):
            done = self.server.run("restore", self.direct, self.folder / "restored.db", "--force", "--at", bookmark)
            if "only together with others" in done.stderr:
                continue  # many waited
            self.assertEqual(done.returncode, 0, done.stderr)
            with sqlite3.connect(self.folder / "restored.db") as connection:
                self.assertEqual(connection.execute("SELECT max(i), count(*) FROM t").fetchone(), (number, number))
        self.assertEqual(len(self.restored(None)), len(moments))


class Ageing:
    """What a database must be restored to, while its moments grow old."""

    def __init__(self, test):
        self.test, self.number, self.promised = test, 0, []  # (number, bookmark, when at the earliest, at the latest)
        self.levels, self.keys = set(), set()

    @staticmethod
    def content(number):
        return f"{number * 7919:06d}" * 400

    def commit(self):
        self.number += 1
        before = time.time()
        done = self.test.server.call("POST", "/db/orders/query",
                                     {"sql": f"INSERT INTO t VALUES({self.number}, '{self.content(self.number)}')"})
        if done is None:
            time.sleep(0.02)
        else:
            self.promised.append((self.number, done[1], before, time.time()))

    def look(self):
        """The objects that are there now."""
        s3 = client("s3", f"http://127.0.0.1:{self.test.service.port}", ID, SECRET)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"node{self.test.seed}/orders/")
        keys = {each["Key"] for page in pages for each in page.get("Contents", ())}
        files = [match for match in (re.search(r"/0*(\d+)/[0-9a-f]{16}-[0-9a-f]{16}\.ltx$", key) for key in keys) if match]
        self.levels |= {int(match.group(1)) for match in files}
        self.keys |= {match.string for match in files}
        return {match.string for match in files}

    def expect_right(self, there, asked):
        """Nothing but what was written then, and all of it that was promised."""
        wrong = [number for number, text in there.items() if text != self.content(number)]
        self.test.assertEqual(wrong, [], asked)
        newest = max(there, default=0)
        missing = [each for each, *_ in self.promised if each <= newest and each not in there]
        self.test.assertEqual(missing, [], asked)
        return newest

    def expect_restorable(self, promise, ended_at=None):
        """As its age says when nothing more is removed: at `ended_at`, or after the restore. Its age, or nothing when it
        is too old for anything."""
        number, bookmark, before, after = promise
        age_at = lambda: (ended_at or time.time()) - before + 0.05
        if age_at() + (0 if ended_at else 0.5) < KEEP_S[0]:
            done = self.test.run_restore(bookmark)
            if age_at() < KEEP_S[0]:
                self.test.assertEqual(done.returncode, 0, (bookmark, done.stderr, self.test.seed))
                self.test.assertEqual(self.expect_right(self.test.content_restored(), bookmark), number)
            return age_at()
        at = datetime.datetime.fromtimestamp(after + 0.002, datetime.timezone.utc)
        done = self.test.run_restore(at.isoformat(timespec="milliseconds"))
        age = age_at()
        if age >= RETENTION_S:
            return None
        apart = (0.0, *WINDOWS_S)[sum(age >= keep for keep in KEEP_S)]
        surely = after if apart == 0 else (before // apart) * apart - 0.002
        expected = max((each[0] for each in self.promised if each[3] <= surely), default=0)
        if expected == 0 and "the first moment that can be restored" in done.stderr:
            return age  # the first ones are put together, too
        self.test.assertEqual(done.returncode, 0, (at, age, done.stderr, self.test.seed))
        newest = self.expect_right(self.test.content_restored(), at)
        self.test.assertGreaterEqual(newest, expected, (at, age, apart, self.test.seed))
        earliest_later = min((each[0] for each in self.promised if each[2] > after + 0.01), default=self.number + 1)
        self.test.assertLess(newest, earliest_later, (at, age, self.test.seed))
        return age


class AgeingServer(AnyServer):
    """Compaction, retention and snapshots happen every second while requests fail and the server is killed."""

    def run_restore(self, moment):
        return self.server.run("restore", self.direct, self.folder / "restored.db", "--force", "--at", moment)

    def content_restored(self):
        with sqlite3.connect(self.folder / "restored.db") as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone()[0], "ok")
            return dict(connection.execute("SELECT i, v FROM t"))

    def write_and_look(self, ageing, seconds):
        """How many restores were made meanwhile; each is as exact as the age of its moment allows."""
        dice, checked, deadline = random.Random(self.seed + len(ageing.keys)), 0, time.monotonic() + seconds
        next_look = time.monotonic() + 1
        while time.monotonic() < deadline:
            ageing.commit()
            if time.monotonic() < next_look or not ageing.promised:
                continue
            next_look = time.monotonic() + 0.7
            ageing.look()
            young = [each for each in ageing.promised if time.time() - each[2] < RETENTION_S - 1]
            if young:
                checked += ageing.expect_restorable(dice.choice(young)) is not None
        return checked

    def test_promises_hold_while_moments_age(self):
        self.kills, ageing = 0, Ageing(self)
        self.server.options = AGEING
        self.server.start()
        self.assertIsNotNone(self.server.call("POST", "/v1/databases", {"name": "orders"}))
        self.assertIsNotNone(self.server.call("POST", "/db/orders/query",
                                              {"sql": "CREATE TABLE t(i INTEGER PRIMARY KEY, v)"}))
        self.proxy.share = FAULTS_SHARE
        killer = threading.Thread(target=self.kill_again_and_again)
        killer.start()
        try:
            checked = self.write_and_look(ageing, SECONDS - 5)
        finally:
            self.stopping.set()
            killer.join()
        checked += self.write_and_look(ageing, 5)  # requests fail all the same
        self.proxy.share = 0
        self.wait_for_archive()
        written = len(ageing.promised)
        for _ in range(5):
            ageing.commit()
        self.server.kill()
        ended_at = time.time()
        self.assertEqual(len(ageing.promised), written + 5)
        self.assertGreater(checked, 3)
        self.assertGreater(self.kills, 1)
        # All of it happened.
        left = ageing.look()
        self.assertLessEqual({0, 1, 2, 9}, ageing.levels)
        self.assertGreater(len(ageing.keys - left), 10)
        first = self.run_restore(ageing.promised[0][1])
        self.assertNotEqual(first.returncode, 0, "retention removed nothing")
        dice, ages = random.Random(self.seed), []
        limits = (0.0, *KEEP_S, RETENTION_S - 0.1)
        for low, high in zip(limits, limits[1:]):
            aged = [each for each in ageing.promised if low <= ended_at - each[2] < high]
            ages += [ageing.expect_restorable(each, ended_at) for each in dice.sample(aged, min(12, len(aged)))]
        self.assertNotIn(None, ages)
        self.assertLess(min(ages), KEEP_S[0])
        proven = self.server.run("verify", self.direct, "--scratch", self.folder)
        self.assertEqual(proven.returncode, 0, proven.stdout + proven.stderr)
        print(f"{len(ageing.promised)} promised, {self.kills} kills, levels {sorted(ageing.levels)}, "
              f"{len(ageing.keys - left)} objects removed, {checked} restores meanwhile, ages {min(ages):.1f} to "
              f"{max(ages):.1f} s afterwards, {self.proxy.counts}")


class VersityGatewayAgeing(AgeingServer, unittest.TestCase):
    test_what_was_promised_can_be_restored = None

    @classmethod
    def setUpClass(cls):
        cls.service = gateway()

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()


@unittest.skipUnless(IS_LONG, "only with OFFPRINT_TEST_SECONDS")
class MotoAgeing(AgeingServer, unittest.TestCase):
    test_what_was_promised_can_be_restored = None

    @classmethod
    def setUpClass(cls):
        cls.service = moto()
        client("s3", f"http://127.0.0.1:{cls.service.port}", ID, SECRET).create_bucket(Bucket=BUCKET)

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()


class VersityGatewayRefusals(RefusedServer, unittest.TestCase):
    test_what_was_promised_can_be_restored = None

    @classmethod
    def setUpClass(cls):
        cls.service = gateway()

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()


class VersityGatewayServer(AnyServer, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = gateway()

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()
        print(cls.said)


class MotoServer(AnyServer, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = moto()
        client("s3", f"http://127.0.0.1:{cls.service.port}", ID, SECRET).create_bucket(Bucket=BUCKET)

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()
        print(cls.said)


if __name__ == "__main__":
    print(f"SEED={SEED}", flush=True)
    unittest.main(verbosity=2)
