"""Our objects in stock S3 services: versitygw (files below) and moto's server. S3_TOOL does an archive's work with the
product's code; boto3 reads what it wrote and writes what it reads. VERSITYGW is the service's program."""
import datetime
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import boto3
import botocore.config

TOOL, GATEWAY = os.environ.get("S3_TOOL"), os.environ["VERSITYGW"]
ID, SECRET = "archive-key", "archive/secret+key"
BUCKET = "bucket"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Service:
    """A program that listens, in a folder of its own."""

    def __init__(self, make_command, **variables):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="offprint-s3-"))
        self.port = free_port()
        self.log = open(self.folder / "log", "wb")
        self.command, self.variables = make_command(self), {**os.environ, **variables}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT, env=self.variables,
                                        cwd=self.folder)
        deadline = time.monotonic() + 60
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text()
                self.stop()
                raise RuntimeError(said)
            time.sleep(0.05)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)


def gateway(*options):
    def command(service):
        for name in ("root", "metadata"):
            (service.folder / name).mkdir()
        (service.folder / "root" / BUCKET).mkdir()
        return [GATEWAY, "--port", f"127.0.0.1:{service.port}", "--quiet", *options, "posix", "--sidecar",
                str(service.folder / "metadata"), str(service.folder / "root")]
    return Service(command, ROOT_ACCESS_KEY=ID, ROOT_SECRET_KEY=SECRET)


def moto(**variables):
    return Service(lambda service: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(service.port)],
                   **variables)


def client(kind, endpoint, key_id, secret, **options):
    return boto3.client(kind, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key_id,
                        aws_secret_access_key=secret,
                        config=botocore.config.Config(s3={"addressing_style": "path"}), **options)


def tool(*arguments, key_id=ID, secret=SECRET, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    keys = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret} if key_id else {}
    return subprocess.run([TOOL, *map(str, arguments)], env={**kept, "HOME": "/nonexistent", **keys, **variables},
                          capture_output=True, timeout=300, check=False)


class AnyService:
    """What every service must do. Subclasses have `endpoint`, `s3`, and the keys `key_id` and `secret`."""

    def url(self, prefix="", bucket=BUCKET):
        return f"s3://{bucket}{prefix}?endpoint={self.endpoint}"

    def run_tool(self, *arguments, **others):
        done = tool(*arguments, **{"key_id": self.key_id, "secret": self.secret, **others})
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode(errors="replace")[:2000])
        self.assertNotIn(self.secret.encode(), done.stdout + done.stderr)
        return done.stdout

    def test_everything_that_an_archive_does(self):
        said = self.run_tool("all", self.url("/pre/fix"))
        self.assertIn(b"9 passed, 0 failed", said)
        self.assertFalse(self.s3.list_objects_v2(Bucket=BUCKET, Prefix="pre/").get("Contents"))
        self.assertFalse(self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads"))

    def test_without_prefix(self):
        self.run_tool("put", self.url(), "0000/top", 10, 1)
        self.assertEqual(self.s3.head_object(Bucket=BUCKET, Key="0000/top")["ContentLength"], 10)
        self.s3.delete_object(Bucket=BUCKET, Key="0000/top")

    def test_boto3_reads_ours(self):
        for size in (0, 5, 20 << 20):
            self.run_tool("put", self.url("/ours"), "0000/x.ltx", size, 1767366245123)
            there = self.s3.get_object(Bucket=BUCKET, Key="ours/0000/x.ltx")
            self.assertEqual(there["ContentLength"], size)
            self.assertEqual(there["Metadata"]["litestream-timestamp"], "2026-01-02T15:04:05.123Z")
            self.assertEqual(there["Body"].read(), self.run_tool("cat", self.url("/ours"), "0000/x.ltx"))

    def test_we_read_what_boto3_wrote(self):
        content = os.urandom(9 << 20)
        self.s3.put_object(Bucket=BUCKET, Key="theirs/0000/x.ltx", Body=content,
                           Metadata={"litestream-timestamp": datetime.datetime.now(datetime.UTC).isoformat()})
        self.assertEqual(self.run_tool("cat", self.url("/theirs"), "0000/x.ltx"), content)

    def test_wrong_secret(self):
        self.run_tool("fails", self.url(), "unauthorized", secret="wrong")

    def test_unknown_key(self):
        self.run_tool("fails", self.url(), "unauthorized", key_id="unknown")

    def test_no_such_bucket(self):
        self.run_tool("fails", self.url(bucket="absent-bucket"), "not_found")

    def test_keys_of_a_profile(self):
        with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
            file.write(f"[backup]\naws_access_key_id = {self.key_id}\naws_secret_access_key = {self.secret}\n")
            file.flush()
            self.run_tool("small", self.url("/profile") + "&profile=backup", key_id="",
                          AWS_SHARED_CREDENTIALS_FILE=file.name)


class VersityGateway(AnyService, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = gateway()
        cls.addClassCleanup(cls.service.stop)
        cls.endpoint = f"http://127.0.0.1:{cls.service.port}"
        cls.key_id, cls.secret = ID, SECRET
        cls.s3 = client("s3", cls.endpoint, ID, SECRET)


    def test_service_that_is_killed_and_comes_back(self):
        # An upload and a download go on, with the bytes that they had to have.
        size = 96 << 20
        for verb, arguments in (("put", (size, 1)), ("cat", ())):
            keys = {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET}
            with tempfile.TemporaryFile() as out:
                process = subprocess.Popen([TOOL, verb, self.url("/killed"), "x", *map(str, arguments)], stdout=out,
                                           env={**os.environ, **keys})
                while verb == "put" and not self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads"):
                    self.assertIsNone(process.poll())
                for _ in range(3):
                    time.sleep(0.1)
                    self.service.kill()
                    self.service.start()
                self.assertEqual(process.wait(timeout=120), 0, verb)
                out.seek(0)
                got = out.read()
        self.assertEqual(len(got), size)
        self.assertEqual(got, self.s3.get_object(Bucket=BUCKET, Key="killed/x")["Body"].read())
        self.run_tool("put", self.url("/calm"), "x", size, 1)
        self.assertEqual(got, self.run_tool("cat", self.url("/calm"), "x"))
        for name in ("killed/x", "calm/x"):
            self.s3.delete_object(Bucket=BUCKET, Key=name)


class Moto(AnyService, unittest.TestCase):
    """With keys that its IAM made: it checks signatures and policies."""

    @classmethod
    def setUpClass(cls):
        cls.service = moto(INITIAL_NO_AUTH_ACTION_COUNT="6")
        cls.addClassCleanup(cls.service.stop)
        cls.endpoint = f"http://127.0.0.1:{cls.service.port}"
        iam = client("iam", cls.endpoint, "any", "any")
        keys = []
        for user in ("archive", "stranger"):
            iam.create_user(UserName=user)
            keys.append(iam.create_access_key(UserName=user)["AccessKey"])
        iam.put_user_policy(UserName="archive", PolicyName="all", PolicyDocument=(
            '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'))
        client("s3", cls.endpoint, "any", "any").create_bucket(Bucket=BUCKET)
        (cls.key_id, cls.secret), cls.stranger = [(key["AccessKeyId"], key["SecretAccessKey"]) for key in keys]
        cls.s3 = client("s3", cls.endpoint, cls.key_id, cls.secret)

    def test_keys_without_rights(self):
        self.run_tool("fails", self.url(), "forbidden", key_id=self.stranger[0], secret=self.stranger[1])

    def test_virtual_hosts(self):
        self.run_tool("small", f"s3://{BUCKET}/virtual?endpoint=http://localhost:{self.service.port}&path_style=0")


class TlsAndVirtualHosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="offprint-s3-tls-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.cert, cls.key = cls.folder / "cert.pem", cls.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "1", "-subj", "/CN=localhost", "-addext",
                        f"subjectAltName=DNS:localhost,DNS:{BUCKET}.localhost", "-keyout", cls.key, "-out", cls.cert],
                       check=True, capture_output=True)
        cls.plain = gateway("--virtual-domain", "localhost")
        cls.addClassCleanup(cls.plain.stop)
        cls.tls = gateway("--virtual-domain", "localhost", "--cert", str(cls.cert), "--key", str(cls.key))
        cls.addClassCleanup(cls.tls.stop)

    def run_tool(self, *arguments, **others):
        done = tool(*arguments, **others)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode(errors="replace")[:2000])
        return done.stdout

    def test_virtual_hosts(self):
        self.run_tool("all", f"s3://{BUCKET}/virtual?endpoint=http://localhost:{self.plain.port}&path_style=0")

    def test_tls(self):
        self.run_tool("all", f"s3://{BUCKET}/tls?endpoint=https://localhost:{self.tls.port}&path_style=0"
                             f"&ca_file={self.cert}")

    def test_tls_by_variables(self):
        self.run_tool("small", f"s3://{BUCKET}/variables?path_style=0", AWS_CA_BUNDLE=str(self.cert),
                      AWS_ENDPOINT_URL=f"https://localhost:{self.tls.port}")

    def test_unknown_certificate_is_refused(self):
        said = self.run_tool("fails", f"s3://{BUCKET}?endpoint=https://localhost:{self.tls.port}&path_style=0",
                             "unavailable")
        self.assertIn(b"certificate", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
