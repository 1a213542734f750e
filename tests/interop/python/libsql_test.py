"""The stock Python client `libsql` against a started server: OFFPRINT_URL is a database's address."""
import os
import unittest

import libsql

URL = os.environ["OFFPRINT_URL"]


def connect():
    return libsql.connect(URL, auth_token="")


class LibsqlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.db = connect()
        cls.db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value)")
        cls.db.commit()

    def setUp(self):
        self.db.execute("DELETE FROM t")
        self.db.commit()

    def test_values_of_every_type(self):
        values = (None, 2**62, 1.5, "Grüße ✓", b"\x00\x01\xfe\xff")
        row = self.db.execute("SELECT ?, ?, ?, ?, ?", values).fetchone()
        self.assertEqual(row, values)

    def test_insert_and_select(self):
        cursor = self.db.execute("INSERT INTO t (id, name) VALUES (?, ?)", (7, "a"))
        self.assertEqual(cursor.lastrowid, 7)
        self.db.execute("INSERT INTO t (name) VALUES ('b')")
        self.db.commit()
        cursor = self.db.execute("SELECT id, name FROM t ORDER BY id")
        self.assertEqual([column[0] for column in cursor.description], ["id", "name"])
        self.assertEqual(cursor.fetchall(), [(7, "a"), (8, "b")])

    def test_many_rows(self):
        self.db.executemany("INSERT INTO t (id, name) VALUES (?, ?)", [(i, f"n{i}") for i in range(100)])
        self.db.commit()
        rows = self.db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            "SELECT i, 'x' || i FROM n").fetchall()
        self.assertEqual(len(rows), 20000)
        self.assertEqual(rows[-1], (20000, "x20000"))
        self.assertEqual(self.db.execute("SELECT count(*) FROM t").fetchone(), (100,))

    def test_commit_and_rollback(self):
        self.db.execute("INSERT INTO t (id) VALUES (1)")
        self.assertTrue(self.db.in_transaction)
        other = connect()
        self.assertEqual(other.execute("SELECT count(*) FROM t").fetchone(), (0,))
        self.db.commit()
        self.assertEqual(other.execute("SELECT count(*) FROM t").fetchone(), (1,))
        self.db.execute("DELETE FROM t")
        self.db.rollback()
        self.assertEqual(self.db.execute("SELECT count(*) FROM t").fetchone(), (1,))

    def test_errors(self):
        self.db.execute("INSERT INTO t (name) VALUES ('a')")
        with self.assertRaisesRegex(ValueError, "UNIQUE constraint failed: t.name"):
            self.db.execute("INSERT INTO t (name) VALUES ('a')")
        self.db.rollback()
        with self.assertRaisesRegex(ValueError, "no such table: nowhere"):
            self.db.execute("SELECT * FROM nowhere").fetchall()

    def test_script(self):
        self.db.executescript("INSERT INTO t (id) VALUES (1); INSERT INTO t (id) VALUES (2);")
        self.assertEqual(self.db.execute("SELECT count(*) FROM t").fetchone(), (2,))


if __name__ == "__main__":
    unittest.main()
