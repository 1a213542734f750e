#include "publication/contract_fixtures_testing.h"

namespace offprint::publication::testing {
namespace {

constexpr const char* kOrders =
    "CREATE TABLE c(id INTEGER PRIMARY KEY, tier TEXT NOT NULL DEFAULT 'a');\n"
    "CREATE TABLE o(id INTEGER PRIMARY KEY, client INT, n INT);\n";

// A contract that reads two columns of o, with more keys in front.
std::string reading(const std::string& keys) {
  return "name = \"k\"\nversion = 1\n" + keys + "\n[reads]\no = [\"id\", \"client\"]\n";
}
std::string asking(const std::string& query) {
  return "name = \"k\"\nqueries = ['''" + query + "''']\n";
}

constexpr const char* kTable = "CREATE TABLE t(a INTEGER NOT NULL, b TEXT, d DATE)";

}  // namespace

std::vector<RuleFixture> table_fixtures() {
  const std::string t = kTable;
  return {
      {"TABLE_NO_DELETE", kOrders, "CREATE TABLE c(id INTEGER PRIMARY KEY, tier TEXT)", kOrders},
      {"TABLE_NO_DELETE", "CREATE TABLE u(a); CREATE TABLE o(id, client)", "CREATE TABLE u(a)",
       "CREATE TABLE o(id, client)", reading("")},
      {"VIEW_NO_DELETE", "CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t", "CREATE TABLE t(a)",
       "CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t WHERE a > 1"},
      {"TABLE_RENAMED", t, "CREATE TABLE other(a INTEGER NOT NULL, b TEXT, d DATE)",
       "CREATE TABLE other(a INTEGER NOT NULL, b TEXT, d DATE);"
       "CREATE VIEW t(a, b, d) AS SELECT a, b, d FROM other"},
      {"COLUMN_RENAMED", t, t + "; ALTER TABLE t RENAME COLUMN b TO bb",
       t + "; ALTER TABLE t RENAME COLUMN b TO bb; ALTER TABLE t ADD COLUMN b TEXT AS (bb)"},
      {"COLUMN_NO_DELETE", kOrders, std::string(kOrders) + "ALTER TABLE o DROP COLUMN n",
       std::string(kOrders) + "ALTER TABLE o ADD COLUMN x"},
      {"COLUMN_NO_DELETE", kOrders, std::string(kOrders) + "ALTER TABLE o DROP COLUMN client",
       std::string(kOrders) + "ALTER TABLE o DROP COLUMN n", reading("")},
      {"COLUMN_NO_DELETE_UNLESS_RESERVED", kOrders,
       std::string(kOrders) + "ALTER TABLE o DROP COLUMN n",
       std::string(kOrders) + "ALTER TABLE o DROP COLUMN client",
       "name = \"k\"\nreserved = [\"o.client\"]\n[reads]\no = \"*\""},
      {"COLUMN_NAME_REUSED", kOrders, std::string(kOrders) + "ALTER TABLE o ADD COLUMN old_tier",
       std::string(kOrders) + "ALTER TABLE o ADD COLUMN new_tier",
       reading("reserved = [\"o.old_tier\"]")},
  };
}

std::vector<RuleFixture> column_fixtures() {
  const std::string t = kTable;
  return {
      {"COLUMN_SAME_AFFINITY", t, "CREATE TABLE t(a TEXT NOT NULL, b TEXT, d DATE)",
       "CREATE TABLE t(a BIGINT NOT NULL, b TEXT, d DATE)"},
      {"COLUMN_SAME_DECLTYPE", t, "CREATE TABLE t(a BIGINT NOT NULL, b TEXT, d DATE)",
       "CREATE TABLE t(a integer NOT NULL, b TEXT, d DATE)", "", "", false},
      {"COLUMN_SAME_DECLTYPE", t, "CREATE TABLE t(a INTEGER NOT NULL, b TEXT, d DATETIME)", t},
      {"COLUMN_SAME_COLLATION", t,
       "CREATE TABLE t(a INTEGER NOT NULL, b TEXT COLLATE NOCASE, d DATE)",
       "CREATE TABLE t(a INTEGER NOT NULL, b TEXT COLLATE binary, d DATE)"},
      {"COLUMN_NOT_NULL_REMOVED", t, "CREATE TABLE t(a INTEGER, b TEXT, d DATE)",
       "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, d DATE)"},
      {"COLUMN_NOT_NULL_REMOVED", t, "CREATE TABLE t(x INTEGER, b TEXT, d DATE, a INTEGER AS (x))",
       "CREATE TABLE t(x INTEGER NOT NULL, b TEXT, d DATE, a INTEGER AS (x))"},
      {"COLUMN_NOT_NULL_ADDED", t, "CREATE TABLE t(a INTEGER NOT NULL, b TEXT NOT NULL, d DATE)",
       t},
      {"COLUMN_ADDED_REQUIRED", t,
       "CREATE TABLE t(a INTEGER NOT NULL, b TEXT, d DATE, e INT NOT NULL)",
       "CREATE TABLE t(a INTEGER NOT NULL, b TEXT, d DATE, e INT NOT NULL DEFAULT 1)"},
      {"COLUMN_ADDED", t, t + "; ALTER TABLE t ADD COLUMN e", t + "; CREATE INDEX i ON t(a)", "",
       "", false},
      {"COLUMN_ADDED", t, t + "; ALTER TABLE t ADD COLUMN e", t + "; CREATE INDEX i ON t(a)",
       asking("SELECT * FROM t")},
      {"COLUMN_ORDER_SAME", t, "CREATE TABLE t(b TEXT, a INTEGER NOT NULL, d DATE)",
       "CREATE TABLE t(a INTEGER NOT NULL, x INT, b TEXT, d DATE)", "", "", false},
      {"NAME_CASE_SAME", t, "CREATE TABLE t(A INTEGER NOT NULL, b TEXT, d DATE)", t, "", "", false},
      {"NAME_CASE_SAME", t, "CREATE TABLE T(a INTEGER NOT NULL, b TEXT, d DATE)", t, "", "", false},
      {"DEFAULT_CHANGED", kOrders,
       "CREATE TABLE c(id INTEGER PRIMARY KEY, tier TEXT NOT NULL DEFAULT 'b')",
       "CREATE TABLE c(id INTEGER PRIMARY KEY, tier TEXT DEFAULT 'a')", "", "", false},
      {"GENERATED_EXPR_CHANGED", "CREATE TABLE t(a INT, b INT AS (a + 1))",
       "CREATE TABLE t(a INT, b INT AS (a + 2))",
       "CREATE TABLE t(a INT, b INT GENERATED ALWAYS AS ( A+1 ))"},
  };
}

std::vector<RuleFixture> file_fixtures() {
  const std::string t = kTable;
  return {
      {"TABLE_TO_VIEW", t, "CREATE TABLE x(a, b, d); CREATE VIEW t AS SELECT a, b, d FROM x", t},
      {"VIEW_TO_TABLE", "CREATE VIEW v AS SELECT 1 AS a", "CREATE TABLE v(a)",
       "CREATE VIEW v AS SELECT 2 AS a", "", "", false},
      {"VIEW_COMPILES", t, t + "; CREATE VIEW v AS SELECT gone FROM t",
       t + "; CREATE VIEW v AS SELECT a FROM t"},
      {"TRIGGER_COMPILES", t,
       t + "; CREATE TABLE u(x, y); CREATE TRIGGER r AFTER INSERT ON t BEGIN"
           " INSERT INTO u(x, y) VALUES(1, 2); END; ALTER TABLE u DROP COLUMN y",
       t + "; CREATE TABLE u(x, y); CREATE TRIGGER r AFTER INSERT ON t BEGIN"
           " INSERT INTO u(x, y) VALUES(1, 2); END"},
      {"TRIGGER_COMPILES", t,
       t + "; CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER r INSTEAD OF UPDATE ON v BEGIN"
           " DELETE FROM nowhere; END",
       t + "; CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER r INSTEAD OF UPDATE ON v BEGIN"
           " DELETE FROM t; END"},
      {"FILE_MIN_SQLITE", t, t + "; CREATE TABLE s(a INT) STRICT", t + "; CREATE TABLE s(strict)",
       "name = \"k\"\nmin_sqlite = \"3.36.0\"\n[reads]\nt = \"*\""},
      {"FILE_MIN_SQLITE", t, t + "; CREATE VIEW v AS SELECT group_concat(b ORDER BY a) AS x FROM t",
       t + "; CREATE VIEW v AS SELECT group_concat(b) AS x, (SELECT a FROM t ORDER BY a LIMIT 1) y,"
           " count(*) OVER (ORDER BY a) AS z FROM t",
       "name = \"k\"\nmin_sqlite = \"3.40.1\"\n[reads]\nt = \"*\""},
      {"FILE_NEEDS_EXTENSION", t, t + "; CREATE INDEX i ON t(b COLLATE german)",
       t + "; CREATE INDEX i ON t(b COLLATE RTRIM)"},
      {"FILE_NEEDS_EXTENSION", t, t + "; CREATE VIEW v AS SELECT soundlike(b) AS x FROM t",
       t + "; CREATE VIEW v AS SELECT upper(b) AS x FROM t"},
      {"FILE_NEEDS_EXTENSION", t, t + "; CREATE VIRTUAL TABLE f USING vec0(embedding float)",
       t + "; CREATE VIRTUAL TABLE f USING fts5(body)"},
      {"FILE_NEEDS_EXTENSION", t, t + "; CREATE VIRTUAL TABLE f USING fts5(body, tokenize=thai)",
       t + "; CREATE VIRTUAL TABLE f USING fts5(body, tokenize=porter)"},
  };
}

std::vector<RuleFixture> key_fixtures() {
  const std::string t = "CREATE TABLE t(a INT, s TEXT CHECK (s IN ('x', 'y')))";
  const std::string child = "CREATE TABLE p(id INTEGER PRIMARY KEY);";
  const std::string strict = "CREATE TABLE t(a INT, b TEXT) STRICT";
  return {
      {"CHECK_LOOSENED", t, "CREATE TABLE t(a INT, s TEXT CHECK (s IN ('x', 'y', 'z')))",
       "CREATE TABLE t(a INT, s TEXT, CONSTRAINT k CHECK ( S in ( 'y','x' )))", "", "", false},
      {"CHECK_LOOSENED", t, "CREATE TABLE t(a INT, s TEXT)", t,
       "name = \"k\"\nclosed_enum = [\"t.s\"]\n[reads]\nt = [\"s\"]"},
      {"CHECK_LOOSENED", "CREATE TABLE t(a INT CHECK (a > 0 AND length(a) <= 3))",
       "CREATE TABLE t(a INT CHECK (length(a) <= 4 AND a > 0))",
       "CREATE TABLE t(a INT CHECK (length(a) <= 2 AND a > 1))", "", "", false},
      {"CHECK_TIGHTENED", t, "CREATE TABLE t(a INT CHECK (a > 1), s TEXT CHECK (s IN ('x', 'y')))",
       t},
      {"CHECK_TIGHTENED", "CREATE TABLE t(a INT)",
       "CREATE TABLE t(a INT CHECK (a BETWEEN 1 AND 3))",
       "CREATE TABLE t(a INT DEFAULT (1 + (2)))"},
      {"STRICT_REMOVED", strict, "CREATE TABLE t(a INT, b TEXT)",
       "CREATE TABLE t(a INT, b TEXT, \"strict\" INT) STRICT", "", "", false},
      {"STRICT_ADDED", "CREATE TABLE t(a INT, b TEXT)", strict, "CREATE TABLE t(a INT, b TEXT)"},
      {"TYPE_DOMAIN_WIDENED", strict, "CREATE TABLE t(a ANY, b TEXT) STRICT", strict, "", "",
       false},
      {"TYPE_DOMAIN_WIDENED", "CREATE TABLE t(a CHECK (typeof(a) = 'integer'))",
       "CREATE TABLE t(a CHECK (typeof(a) IN ('integer', 'text')))",
       "CREATE TABLE t(a CHECK (typeof(a) IN ('integer')))", "", "", false},
      {"PK_SAME", "CREATE TABLE t(a, b, PRIMARY KEY(a, b))",
       "CREATE TABLE t(a, b, PRIMARY KEY(b, a))", "CREATE TABLE t(a, b, PRIMARY KEY(A, b))"},
      {"UNIQUE_NO_DELETE", "CREATE TABLE t(a, b, UNIQUE(a, b))", "CREATE TABLE t(a, b)",
       "CREATE TABLE t(a, b); CREATE UNIQUE INDEX i ON t(b, a DESC)"},
      {"UNIQUE_ADDED", "CREATE TABLE t(a UNIQUE, b)", "CREATE TABLE t(a UNIQUE, b UNIQUE)",
       "CREATE TABLE t(a UNIQUE, b); CREATE UNIQUE INDEX i ON t(a, b)"},
      {"ROWID_ALIAS_SAME", "CREATE TABLE t(a INTEGER PRIMARY KEY)",
       "CREATE TABLE t(a INT PRIMARY KEY)", "CREATE TABLE t(a integer, PRIMARY KEY(a))"},
      {"ROWID_ALIAS_SAME", "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT)",
       "CREATE TABLE t(a INTEGER PRIMARY KEY)",
       "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)"},
      {"WITHOUT_ROWID_SAME", "CREATE TABLE t(a TEXT PRIMARY KEY)",
       "CREATE TABLE t(a TEXT PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE t(a TEXT PRIMARY KEY, b)"},
      {"FK_ADDED", child + "CREATE TABLE t(a INT)", child + "CREATE TABLE t(a INT REFERENCES p)",
       child + "CREATE TABLE t(a INT)"},
      {"FK_NO_DELETE", child + "CREATE TABLE t(a INT REFERENCES p(id))",
       child + "CREATE TABLE t(a INT)",
       child + "CREATE TABLE t(a INT, FOREIGN KEY(a) REFERENCES p(id))", "", "", false},
      {"FK_NO_DELETE", child + "CREATE TABLE t(a INT REFERENCES p(id))",
       child + "CREATE TABLE t(a INT)", child + "CREATE TABLE t(a INT REFERENCES p(id), b)",
       "name = \"k\"\njoins = [\"t.a = p.id\"]\n[reads]\nt = [\"a\"]"},
      {"FK_ACTION_SAME", child + "CREATE TABLE t(a INT REFERENCES p(id))",
       child + "CREATE TABLE t(a INT REFERENCES p(id) ON DELETE CASCADE)",
       child + "CREATE TABLE t(a INT REFERENCES p(id) ON DELETE NO ACTION)", "", "", false},
      {"INDEX_NO_DELETE", "CREATE TABLE t(a, b); CREATE INDEX i ON t(a)", "CREATE TABLE t(a, b)",
       "CREATE TABLE t(a, b); CREATE INDEX k ON t(a, b)", "", "", false},
      {"INDEX_NO_DELETE", "CREATE TABLE t(a, b); CREATE INDEX i ON t(a + b) WHERE a > 1",
       "CREATE TABLE t(a, b); CREATE INDEX i ON t(a + b)",
       "CREATE TABLE t(a, b); CREATE INDEX i ON t( A+b ) WHERE a>1", "", "", false},
      {"TABLE_REBUILD", t, "CREATE TABLE t(a TEXT, s TEXT CHECK (s IN ('x', 'y')))",
       t + "; ALTER TABLE t ADD COLUMN z INT NOT NULL DEFAULT 1;"
           " ALTER TABLE t RENAME COLUMN a TO aa",
       "", "", false},
      {"TABLE_REBUILD", child + "CREATE TABLE t(a INT)", child + "CREATE TABLE t(a INT UNIQUE)",
       child + "CREATE TABLE t(a INT); ALTER TABLE t ADD COLUMN b REFERENCES p(id)", "", "", false},
      {"LARGE_REWRITE", "CREATE TABLE t(a, b)", "CREATE TABLE t(a)",
       "CREATE TABLE t(a, b); CREATE INDEX i ON t(a)", "", "", false},
      {"LARGE_REWRITE", "CREATE TABLE t(a, b)", "CREATE TABLE t(a, b); CREATE INDEX i ON t(a)",
       "CREATE TABLE t(a, b, c)", "", "", false,
       "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
       " LIMIT 300) INSERT INTO t SELECT i, zeroblob(4000) FROM n"},
  };
}

std::vector<RuleFixture> query_fixtures() {
  const std::string t = "CREATE TABLE t(a INTEGER, b TEXT);";
  const std::string rows = "INSERT INTO t VALUES(1, 'x'), (2, NULL), (2, 'z');";
  const std::string joined = "CREATE TABLE u(a INTEGER, c);";
  const std::string view = t + "CREATE VIEW v AS SELECT a, b FROM t";
  const std::string newer = "name = \"k\"\nversion = 2\n[reads]\nt = \"*\"\n[where]\nt = ";
  const std::string older = "name = \"k\"\nversion = 1\n[reads]\nt = \"*\"\n[where]\nt = ";
  const std::string ignoring = "-- contract:ignore COLUMN_ADDED ";
  const std::string added = "CREATE TABLE t(a INTEGER, b TEXT, c)";
  return {
      {"VIEW_RESULT_COLUMNS", view, t + "CREATE VIEW v AS SELECT b, a FROM t",
       t + "CREATE VIEW v(a, b) AS SELECT a, b FROM t"},
      {"VIEW_RESULT_COLUMNS", view, t + "CREATE VIEW v AS SELECT a, b, 1 AS c FROM t", view,
       "name = \"k\"\n[reads]\nv = [\"a\"]", "", false},
      {"COLUMN_RENAMED", view, view + "; ALTER TABLE t RENAME COLUMN b TO bb",
       t + "CREATE VIEW v(a, b) AS SELECT a, b FROM t; ALTER TABLE t RENAME COLUMN b TO bb",
       "name = \"k\"\n[reads]\nv = [\"b\"]"},
      {"VIEW_RESULT_AFFINITY", view, t + "CREATE VIEW v AS SELECT a, CAST(b AS INT) AS b FROM t",
       t + "CREATE VIEW v AS SELECT a, b FROM t WHERE a > 1"},
      {"VIEW_STAR", view, t + "CREATE VIEW v AS SELECT * FROM t",
       t + "CREATE VIEW v AS SELECT a, b FROM t WHERE EXISTS (SELECT * FROM t) AND 2 * 3 = 6", "",
       "", false},
      {"VIEW_ROWSET_SAME", view, t + "CREATE VIEW v AS SELECT a, b FROM t WHERE a = 1",
       t + "CREATE VIEW v AS SELECT a, b FROM t WHERE a < 100", "", "", false, t + rows},
      {"NAME_AMBIGUOUS", t + joined, t + "CREATE TABLE u(a INTEGER, c, b)", t + joined + "--",
       asking("SELECT b FROM t JOIN u ON u.a = t.a")},
      {"NATURAL_JOIN_CHANGED", t + joined, t + "CREATE TABLE u(a INTEGER, c, b)",
       t + "CREATE TABLE u(a INTEGER, c, d)", asking("SELECT t.a, c FROM t NATURAL JOIN u")},
      {"QUERY_COMPILES", t, "CREATE TABLE t(a INTEGER)", "CREATE TABLE t(b TEXT, a INTEGER)",
       asking("INSERT INTO t(b) VALUES(?)")},
      {"QUERY_COMPILES", t, "CREATE TABLE t(a INTEGER NOT NULL, b TEXT)", t + joined,
       asking("INSERT INTO t(b) VALUES('x')")},
      {"QUERY_COMPILES", t + "CREATE UNIQUE INDEX i ON t(a)", t,
       t + "CREATE UNIQUE INDEX j ON t(a)",
       asking("INSERT INTO t(a) VALUES(1) ON CONFLICT(a) DO NOTHING")},
      {"QUERY_COMPILES", t, "CREATE TABLE x(a, b); CREATE VIEW t AS SELECT a, b FROM x", t,
       asking("SELECT rowid FROM t")},
      {"QUERY_RESULT_COLUMNS", t, added, t + joined, asking("SELECT * FROM t")},
      {"QUERY_RESULT_AFFINITY", t, "CREATE TABLE t(a TEXT, b TEXT)", "CREATE TABLE t(a INT, b INT)",
       asking("SELECT a FROM t")},
      {"QUERY_ROWSET_SAME", view, t + "CREATE VIEW v AS SELECT a, b FROM t WHERE b IS NOT NULL",
       view, asking("SELECT count(*) FROM v"), "", false, t + rows},
      {"PLAN_CHANGED", t + "CREATE INDEX i ON t(b)", t, t + "CREATE INDEX j ON t(b, a)",
       asking("SELECT a FROM t WHERE b = ?"), "", false},
      {"ROW_FILTER_NARROWED", t, t, t + joined, newer + "\"a > 5 AND b = 'x'\"",
       older + "\"a > 5\""},
      {"ROW_FILTER_NARROWED", t, t, "", newer + "\"b IN ('x')\"", older + "\"b IN ('x', 'y')\""},
      {"ROW_FILTER_WIDENED", t, t, "", newer + "\"a > 3\"", older + "\"a > 5\""},
      {"CONTRACT_UNKNOWN_NAME", t, t, "CREATE TABLE t(a INTEGER, b TEXT, missing)",
       "name = \"k\"\n[reads]\nt = [\"missing\"]"},
      {"IGNORE_INVALID", t, ignoring + "reason=\"r\"\n" + added,
       ignoring + "until=2999-01-01 reason=\"r\"\n" + added},
      {"IGNORE_INVALID", t, "-- contract:ignore NO_RULE until=2999-01-01 reason=\"r\"\n" + added,
       added},
      {"IGNORE_INVALID", t, added + ";\n" + ignoring + "until=2999-01-01 reason=\"r\"",
       added + ";\n" + ignoring + "object=t until=2999-01-01 reason=\"r\""},
      {"IGNORE_EXPIRED", t, ignoring + "until=2026-11-21 reason=\"r\"\n" + added,
       ignoring + "until=2026-11-22 reason=\"r\"\n" + added},
      {"IGNORE_UNUSED", t, ignoring + "until=2999-01-01 reason=\"r\"\n" + t,
       ignoring + "until=2999-01-01 reason=\"r\"\n" + added, "", "", false},
  };
}

}  // namespace offprint::publication::testing
