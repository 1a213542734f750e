"""The stock Python client `turso_serverless`, which sends everything through cursors: OFFPRINT_URL is a database's address."""
import os
import unittest

import turso_serverless

URL = os.environ["OFFPRINT_URL"]


class TursoTest(unittest.TestCase):
    def setUp(self):
        self.db = turso_serverless.connect(URL, auth_token="")
        self.db.execute("DROP TABLE IF EXISTS t")
        self.db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        self.db.commit()

    def tearDown(self):
        self.db.close()

    def test_values_of_every_type(self):
        values = (None, 2**62, 1.5, "Grüße ✓", b"\x00\x01\xfe\xff")
        self.assertEqual(tuple(self.db.execute("SELECT ?, ?, ?, ?, ?", values).fetchone()), values)

    def test_insert_and_select(self):
        cursor = self.db.execute("INSERT INTO t (id, name) VALUES (7, 'a')")
        self.assertEqual((cursor.lastrowid, cursor.rowcount), (7, 1))
        self.db.executemany("INSERT INTO t (name) VALUES (?)", [("b",), ("c",)])
        self.db.commit()
        cursor = self.db.execute("SELECT id, name FROM t ORDER BY id")
        self.assertEqual([column[0] for column in cursor.description], ["id", "name"])
        self.assertEqual([tuple(row) for row in cursor.fetchall()], [(7, "a"), (8, "b"), (9, "c")])

    def test_transaction(self):
        self.db.execute("INSERT INTO t VALUES (1, 'a')")
        self.db.rollback()
        self.db.execute("INSERT INTO t VALUES (2, 'b')")
        self.db.commit()
        other = turso_serverless.connect(URL, auth_token="")
        self.assertEqual([tuple(row) for row in other.execute("SELECT id FROM t").fetchall()], [(2,)])
        other.close()

    def test_errors(self):
        self.db.execute("INSERT INTO t VALUES (1, 'a')")
        with self.assertRaisesRegex(turso_serverless.Error, "UNIQUE constraint failed: t.name"):
            self.db.execute("INSERT INTO t VALUES (2, 'a')")
        self.db.rollback()

    def test_many_rows(self):
        rows = self.db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
            "SELECT i, hex(zeroblob(20)) FROM n").fetchall()
        self.assertEqual(len(rows), 50000)


if __name__ == "__main__":
    unittest.main()
