"""Archives in a stock S3 service, between Offprint and stock Litestream, both ways: what the server archived is restored
by each version of Litestream at the newest moment, at each transaction and at times between them; what Litestream
replicated is restored by us at each of its transactions. Equal page by page, but for the counters and the journal mode in
page 1. OFFPRINT is the program, LITESTREAM the folders of Litestream's, one for each version, with blanks between."""
import datetime
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
import unittest
import urllib.request

from s3_test import BUCKET, ID, SECRET, client, gateway
from server_test import Server

VERSIONS = [str(pathlib.Path(folder) / "litestream") for folder in os.environ["LITESTREAM"].split()]
APART_S = 1.1  # a list of objects has times in seconds, by which Litestream decides whether there was one so late
COUNTERS = (18, 19, *range(24, 28), *range(92, 96))
STEPS = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, noise BLOB)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<400) INSERT INTO t(noise) "
    "SELECT randomblob(300) FROM n",
    "CREATE INDEX i ON t(noise)",
    "DELETE FROM t WHERE id > 50",
    "VACUUM",
    "INSERT INTO t(noise) VALUES (zeroblob(200000))",
)


def pages(content):
    content = bytearray(content)
    for at in COUNTERS:
        content[at] = 0
    return bytes(content)


def now():
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class LitestreamInS3(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="offprint-s3-litestream-"))
        self.service = gateway()
        self.endpoint = f"endpoint=http://127.0.0.1:{self.service.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment = {**kept, "AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET}

    def tearDown(self):
        self.service.stop()
        shutil.rmtree(self.folder)

    def url(self, prefix):
        return f"s3://{BUCKET}/{prefix}?{self.endpoint}"

    def run_program(self, *arguments):
        done = subprocess.run([str(each) for each in arguments], env=self.environment, capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, 0, (arguments, done.stdout, done.stderr))

    def restored(self, program, url, *options):
        file = self.folder / "restored.db"
        file.unlink(missing_ok=True)
        self.run_program(program, "restore", *options, "-o", file, f"{url}&region=us-east-1&forcePathStyle=true")
        return pages(file.read_bytes())

    def test_they_restore_ours(self):
        server = Server(self.folder, self.url("node"))
        server.start()
        self.addCleanup(server.kill)
        server.call("POST", "/v1/databases", {"name": "shop/orders"})
        moments = []  # transaction, content, a time at which it is the newest
        for number, sql in enumerate(STEPS, 1):
            answer = server.call("POST", "/db/shop/orders/query", {"sql": sql})
            self.assertIsNotNone(answer, sql)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/db/shop/orders/snapshot") as snapshot:
                content = pages(snapshot.read())
            time.sleep(APART_S)
            moments.append((number, content, now()))
            time.sleep(APART_S)
        url = self.url("node/shop/orders")
        for program in VERSIONS:
            self.assertEqual(self.restored(program, url), moments[-1][1], program)
            for number, content, at in moments:
                self.assertEqual(self.restored(program, url, "-txid", f"{number:016x}"), content, (program, number))
                if number < len(moments):  # it takes no time after the last write
                    self.assertEqual(self.restored(program, url, "-timestamp", at), content, (program, at))

    def newest_of_theirs(self, prefix):
        s3 = client("s3", f"http://127.0.0.1:{self.service.port}", ID, SECRET)
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/0000/").get("Contents", ())
        ends = [re.search(r"-([0-9a-f]{16})\.ltx$", each["Key"]) for each in found]
        return max((int(end.group(1), 16) for end in ends if end), default=0)

    def test_we_restore_theirs(self):
        for number, program in enumerate(VERSIONS):
            prefix, file = f"theirs{number}", self.folder / f"source{number}.db"
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            url = self.url(prefix)
            replicating = subprocess.Popen([program, "replicate", str(file), f"{url}&region=us-east-1&forcePathStyle=true"],
                                           env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(replicating.kill)
            moments = []
            for sql in STEPS:
                before, deadline = self.newest_of_theirs(prefix), time.monotonic() + 30
                connection = sqlite3.connect(file, isolation_level=None, timeout=10)
                connection.execute(sql)
                connection.close()
                while self.newest_of_theirs(prefix) <= before:
                    self.assertLess(time.monotonic(), deadline, f"{program} does not go on")
                    time.sleep(0.1)
                moments.append(self.newest_of_theirs(prefix))
            replicating.terminate()
            replicating.wait()
            ours = self.folder / "ours.db"
            for moment in moments:
                self.run_program(os.environ["OFFPRINT"], "restore", url, ours, "--force", "--at", moment)
                theirs = self.restored(program, url, "-txid", f"{moment:016x}")
                self.assertEqual(pages(ours.read_bytes()), theirs, (program, moment))
            self.run_program(os.environ["OFFPRINT"], "restore", url, ours, "--force")
            with sqlite3.connect(ours) as one, sqlite3.connect(file) as other:
                count = "SELECT count(*), sum(length(noise)) FROM t"
                self.assertEqual(one.execute(count).fetchone(), other.execute(count).fetchone())


if __name__ == "__main__":
    unittest.main(verbosity=2)
