// The stock npm client @libsql/client against a started server: OFFPRINT_URL is a database's address.
// Run by tests/interop/run, from a folder where the client is installed.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import { createClient } from "@libsql/client";

const url = process.env.OFFPRINT_URL.replace(/\/?$/, "/");
const client = createClient({ url });

const plain = (result) => result.rows.map((row) => Array.from(row));
const refused = (code, extended) => (error) => {
  assert.equal(error.name.startsWith("Libsql"), true, `${error.name}: ${error.message}`);
  assert.equal(error.code, code, error.message);
  if (extended) assert.equal(error.extendedCode, extended);
  return true;
};

before(() => client.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value)"));
beforeEach(() => client.execute("DELETE FROM t"));
after(() => client.close());

describe("execute", () => {
  it("answers columns, types, rows, changes and the last rowid", async () => {
    const inserted = await client.execute("INSERT INTO t (id, name) VALUES (7, 'a')");
    assert.equal(inserted.rowsAffected, 1);
    assert.equal(inserted.lastInsertRowid, 7n);
    const read = await client.execute("SELECT id, name, value FROM t");
    assert.deepEqual(read.columns, ["id", "name", "value"]);
    assert.deepEqual(read.columnTypes, ["INTEGER", "TEXT", ""]);
    assert.deepEqual(plain(read), [[7, "a", null]]);
    assert.equal(read.rows[0].name, "a");
    assert.equal(read.rowsAffected, 0);
  });

  it("binds positional arguments", async () => {
    const read = await client.execute({ sql: "SELECT ?, ?2, ?1", args: ["x", 2] });
    assert.deepEqual(plain(read), [["x", 2, "x"]]);
  });

  it("binds named arguments with each prefix", async () => {
    const read = await client.execute({ sql: "SELECT :a, @b, $c", args: { a: 1, b: "two", c: null } });
    assert.deepEqual(plain(read), [[1, "two", null]]);
  });

  it("carries values of every type there and back", async () => {
    const blob = Uint8Array.from([0, 1, 254, 255]);
    const read = await client.execute({
      sql: "SELECT ?, ?, ?, ?, ?, typeof(?6), typeof(?7)",
      args: [null, 1.5, "Grüße ✓ \u0000 end", blob, true, 2 ** 31, new Date(0)],
    });
    const [row] = plain(read);
    assert.deepEqual(row.slice(0, 3), [null, 1.5, "Grüße ✓ \u0000 end"]);
    assert.deepEqual(new Uint8Array(row[3]), blob);
    assert.equal(row[4], 1);
    assert.deepEqual(row.slice(5), ["real", "real"]); // the client sends every number as a float
  });

  it("carries blobs of every length of padding", async () => {
    for (const length of [0, 1, 2, 3, 4, 1000]) {
      const blob = Uint8Array.from({ length }, (_, index) => index & 255);
      const read = await client.execute({ sql: "SELECT ?, length(?1)", args: [blob] });
      assert.deepEqual(new Uint8Array(read.rows[0][0]), blob);
      assert.equal(read.rows[0][1], length);
    }
  });

  it("keeps 64-bit integers exact", async () => {
    const exact = createClient({ url, intMode: "bigint" });
    const values = [9223372036854775807n, -9223372036854775808n, 9007199254740993n, 0n];
    for (const value of values) {
      const read = await exact.execute({ sql: "SELECT ?, typeof(?1)", args: [value] });
      assert.deepEqual(plain(read), [[value, "integer"]]);
    }
    exact.close();
    await assert.rejects(client.execute("SELECT 9007199254740993"), RangeError);
  });

  it("keeps equal column names apart", async () => {
    const read = await client.execute("SELECT 1 AS a, 2 AS a");
    assert.deepEqual(read.columns, ["a", "a"]);
    assert.deepEqual(plain(read), [[1, 2]]);
  });

  it("returns the rows of RETURNING", async () => {
    const result = await client.execute("INSERT INTO t (name) VALUES ('r') RETURNING name, id IS NOT NULL");
    assert.deepEqual(plain(result), [["r", 1]]);
    assert.equal(result.rowsAffected, 1);
  });
});

describe("errors", () => {
  it("name SQLite's code", async () => {
    await client.execute("INSERT INTO t (id, name) VALUES (1, 'a')");
    await assert.rejects(client.execute("INSERT INTO t (id) VALUES (1)"), refused("SQLITE_CONSTRAINT"));
    await assert.rejects(client.execute("INSERT INTO t (name) VALUES ('a')"), refused("SQLITE_CONSTRAINT"));
    await assert.rejects(client.execute("SELECT * FROM nowhere"), refused("SQLITE_ERROR"));
    await assert.rejects(client.execute("SELEC 1"), (error) => error.code.length > 0);
  });

  it("leave the client usable", async () => {
    await assert.rejects(client.execute("SELECT"));
    assert.deepEqual(plain(await client.execute("SELECT 1")), [[1]]);
  });

  it("refuse a wrong number of arguments", async () => {
    await assert.rejects(client.execute({ sql: "SELECT ?, ?", args: [1] }), (error) => error.code.length > 0);
  });
});

describe("batch", () => {
  it("runs all statements as one transaction", async () => {
    const results = await client.batch(
      [
        "INSERT INTO t (id, name) VALUES (1, 'a')",
        { sql: "INSERT INTO t (id, name) VALUES (?, ?)", args: [2, "b"] },
        ["UPDATE t SET value = :v", { v: 5 }],
        "SELECT count(*), sum(value) FROM t",
      ],
      "write",
    );
    assert.deepEqual(results.map((result) => result.rowsAffected), [1, 1, 2, 0]);
    assert.deepEqual(plain(results[3]), [[2, 10]]);
  });

  it("rolls back as a whole when a statement fails", async () => {
    for (const mode of ["write", "deferred"]) {
      await assert.rejects(
        client.batch(["INSERT INTO t (id) VALUES (1)", "INSERT INTO t (id) VALUES (1)", "SELECT 1"], mode),
        refused("SQLITE_CONSTRAINT"),
      );
      assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[0]]);
    }
  });

  it("repeats one text with a hundred arguments", async () => {
    const sql = "INSERT INTO t (id, name) VALUES (?, ?)";
    await client.batch(Array.from({ length: 100 }, (_, index) => ({ sql, args: [index, `n${index}`] })), "write");
    assert.deepEqual(plain(await client.execute("SELECT count(*), max(name) FROM t")), [[100, "n99"]]);
  });

  it("reads in read mode", async () => {
    const results = await client.batch(["SELECT 1", "SELECT 2"], "read");
    assert.deepEqual(results.map(plain), [[[1]], [[2]]]);
  });

  it("survives many at once", async () => {
    const batches = Array.from({ length: 40 }, (_, index) =>
      client.batch([`INSERT INTO t (id) VALUES (${index})`, "UPDATE t SET value = id"], "write"));
    await Promise.all(batches);
    assert.deepEqual(plain(await client.execute("SELECT count(*), sum(value = id) FROM t")), [[40, 40]]);
  });
});

describe("transaction", () => {
  it("commits", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    await transaction.batch(["INSERT INTO t (id) VALUES (2)", { sql: "INSERT INTO t (id) VALUES (?)", args: [3] }]);
    assert.deepEqual(plain(await transaction.execute("SELECT count(*) FROM t")), [[3]]);
    await transaction.commit();
    assert.equal(transaction.closed, true);
    assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[3]]);
  });

  it("rolls back", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    await transaction.rollback();
    assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[0]]);
  });

  it("rolls back when it is closed without a commit", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    transaction.close();
    await client.execute("INSERT INTO t (id) VALUES (2)");
    assert.deepEqual(plain(await client.execute("SELECT id FROM t")), [[2]]);
  });

  it("goes on after a statement that failed", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    await assert.rejects(transaction.execute("INSERT INTO t (id) VALUES (1)"), refused("SQLITE_CONSTRAINT"));
    await transaction.execute("INSERT INTO t (id) VALUES (2)");
    await transaction.commit();
    assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[2]]);
  });

  it("is not seen by others before it commits", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[0]]);
    await transaction.commit();
    assert.deepEqual(plain(await client.execute("SELECT count(*) FROM t")), [[1]]);
  });

  it("waits its turn: two that read and then write lose no update", async () => {
    await client.execute("INSERT INTO t (id, value) VALUES (1, 0)");
    const increment = async () => {
      const transaction = await client.transaction("write");
      const { rows } = await transaction.execute("SELECT value FROM t WHERE id = 1");
      await transaction.execute({ sql: "UPDATE t SET value = ? WHERE id = 1", args: [rows[0].value + 1] });
      await transaction.commit();
    };
    await Promise.all(Array.from({ length: 8 }, increment));
    assert.deepEqual(plain(await client.execute("SELECT value FROM t")), [[8]]);
  });

  it("that read an older state than the last commit is refused or was first", async () => {
    await client.execute("INSERT INTO t (id, value) VALUES (1, 0)");
    const transaction = await client.transaction("deferred");
    const { rows } = await transaction.execute("SELECT value FROM t WHERE id = 1");
    const other = client.execute("UPDATE t SET value = value + 1 WHERE id = 1");
    let committed = true;
    try {
      await transaction.execute({ sql: "UPDATE t SET value = ? WHERE id = 1", args: [rows[0].value + 1] });
      await transaction.commit();
    } catch (error) {
      committed = false;
      assert.match(error.code, /^SQLITE_BUSY/);
      transaction.close();
    }
    await other;
    assert.deepEqual(plain(await client.execute("SELECT value FROM t")), [[committed ? 2 : 1]]);
  });

  it("left idle is rolled back and told so", async () => {
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO t (id) VALUES (1)");
    await client.execute("INSERT INTO t (id) VALUES (2)"); // waits for the write slot, so for the time-out
    await assert.rejects(transaction.commit(), refused("TRANSACTION_TIMEOUT"));
    assert.deepEqual(plain(await client.execute("SELECT id FROM t")), [[2]]);
  });
});

describe("executeMultiple", () => {
  it("runs a script", async () => {
    await client.executeMultiple(`
      INSERT INTO t (id) VALUES (1); -- a comment; with a semicolon
      CREATE TABLE IF NOT EXISTS u (a);
      CREATE TRIGGER IF NOT EXISTS g AFTER INSERT ON u BEGIN INSERT INTO t (id) VALUES (new.a); SELECT 1; END;
      INSERT INTO u VALUES (20);
    `);
    assert.deepEqual(plain(await client.execute("SELECT id FROM t ORDER BY id")), [[1], [20]]);
    await client.executeMultiple("DROP TABLE u");
  });

  it("stops at the first error", async () => {
    await assert.rejects(
      client.executeMultiple("INSERT INTO t (id) VALUES (1); SELECT * FROM nowhere; INSERT INTO t (id) VALUES (2)"),
      refused("SQLITE_ERROR"),
    );
    assert.deepEqual(plain(await client.execute("SELECT id FROM t")), [[1]]);
  });
});

describe("migrate", () => {
  it("changes the schema as one transaction", async () => {
    await client.migrate([
      "CREATE TABLE parent (id INTEGER PRIMARY KEY, old TEXT)",
      "CREATE TABLE child (parent INTEGER REFERENCES parent (id))",
      { sql: "INSERT INTO parent VALUES (?, ?)", args: [1, "x"] },
      "INSERT INTO child VALUES (1)",
      "ALTER TABLE parent RENAME COLUMN old TO new",
    ]);
    assert.deepEqual(plain(await client.execute("SELECT new FROM parent JOIN child ON parent = id")), [["x"]]);
    await assert.rejects(client.execute("INSERT INTO child VALUES (99)"), refused("SQLITE_CONSTRAINT"));
  });

  it("makes a table anew that others refer to", async () => {
    await client.migrate([
      "CREATE TABLE parent_2 (id INTEGER PRIMARY KEY, new TEXT NOT NULL)",
      "INSERT INTO parent_2 SELECT id, new FROM parent",
      "DROP TABLE parent",
      "ALTER TABLE parent_2 RENAME TO parent",
    ]);
    assert.deepEqual(plain(await client.execute("SELECT new FROM parent JOIN child ON parent = id")), [["x"]]);
    await assert.rejects(client.execute("INSERT INTO child VALUES (99)"), refused("SQLITE_CONSTRAINT"));
  });

  it("leaves nothing of a migration that failed", async () => {
    await assert.rejects(client.migrate(["CREATE TABLE half (a)", "ALTER TABLE nowhere ADD COLUMN b"]),
      refused("SQLITE_ERROR"));
    await assert.rejects(client.execute("SELECT * FROM half"), refused("SQLITE_ERROR"));
    await client.executeMultiple("DROP TABLE child; DROP TABLE parent");
  });
});

describe("read your writes", () => {
  it("across clients and connections", async () => {
    const other = createClient({ url });
    for (let index = 0; index < 50; index++) {
      await client.execute({ sql: "INSERT INTO t (id) VALUES (?)", args: [index] });
      assert.deepEqual(plain(await other.execute("SELECT max(id) FROM t")), [[index]]);
    }
    other.close();
  });
});
