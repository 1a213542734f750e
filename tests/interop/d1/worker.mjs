// A Worker that knows its database only as env.DB. Every path runs one check and answers with what
// it found; binding_test.mjs says what that must be. It runs in stock workerd and in Miniflare.
const checks = {
  async setup(db) {
    await db.exec("DROP TABLE IF EXISTS t\nDROP TABLE IF EXISTS c");
    const { count } = await db.exec(
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n REAL, b BLOB, UNIQUE(v))\n" +
        "INSERT INTO t(v, n) VALUES ('one', 1.5); INSERT INTO t(v) VALUES ('two')",
    );
    return count;
  },
  async run(db) {
    const { success, results, meta } = await db.prepare("INSERT INTO t(v) VALUES (?1)").bind("three").run();
    return { success, results, changes: meta.changes, id: meta.last_row_id, changed: meta.changed_db, written: meta.rows_written };
  },
  async all(db) {
    const { results, meta } = await db.prepare("SELECT id, v FROM t WHERE id < ? ORDER BY id").bind(3).all();
    return { results, primary: meta.served_by_primary, size: meta.size_after > 0, changed: meta.changed_db };
  },
  async first(db) {
    const statement = db.prepare("SELECT id, v FROM t WHERE v = ?").bind("two");
    return [await statement.first(), await statement.first("v"), await db.prepare("SELECT 1 WHERE 0").first()];
  },
  async raw(db) {
    const statement = db.prepare("SELECT 1 AS a, 2 AS a, NULL");
    return [await statement.raw(), await statement.raw({ columnNames: true })];
  },
  async blobs(db) {
    const bytes = new Uint8Array([0, 1, 254, 255]);
    await db.prepare("UPDATE t SET b = ?, n = ? WHERE v = 'one'").bind(bytes.buffer, -0.25).run();
    return db.prepare("SELECT b, n, typeof(b) AS type, ? AS empty FROM t WHERE v = 'one'").bind(new ArrayBuffer(0)).first();
  },
  async values(db) {
    return db.prepare("SELECT ? AS a, ? AS b, ? AS c, ? AS d, typeof(?) AS e, 9007199254740991 AS f")
      .bind("ä\u{1f600}\n\"", true, null, 1e300, 7).first();
  },
  async batch(db) {
    const results = await db.batch([
      db.prepare("INSERT INTO t(v) VALUES (?)").bind("four"),
      db.prepare("SELECT count(*) AS n FROM t"),
      db.prepare("DELETE FROM t WHERE v = ?").bind("four"),
    ]);
    return results.map((r) => [r.success, r.results, r.meta.changes]);
  },
  async batch_fails(db) {
    let message = "";
    try {
      await db.batch([
        db.prepare("DELETE FROM t"),
        db.prepare("INSERT INTO t(v) VALUES ('x'), ('x')"),
      ]);
    } catch (e) {
      message = e.message;
    }
    return [message, await db.prepare("SELECT count(*) AS n FROM t").first("n")];
  },
  async errors(db) {
    const of = async (work) => {
      try {
        await work();
        return "no error";
      } catch (e) {
        return e.message;
      }
    };
    return [
      await of(() => db.prepare("SELECT * FROM nope").all()),
      await of(() => db.prepare("INSERT INTO t(v) VALUES ('one')").run()),
      await of(() => db.prepare("BEGIN").run()),
      await of(() => db.exec("SELECT * FROM nope")),
      await of(() => db.prepare("SELECT ?").bind(1, 2).all()),
    ];
  },
  async session(db) {
    const session = db.withSession("first-primary");
    const before = session.getBookmark();
    await session.prepare("CREATE TABLE c(v)").run();
    const written = session.getBookmark();
    const again = db.withSession(written);
    const n = await again.prepare("SELECT count(*) AS n FROM c").first("n");
    await again.prepare("INSERT INTO c VALUES (1)").run();
    const anywhere = db.withSession();
    await anywhere.prepare("SELECT 1").run();
    return {
      before,
      n,
      shape: /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/.test(written),
      grows: written.localeCompare(again.getBookmark()) < 0,
      same: anywhere.getBookmark() === again.getBookmark(),
    };
  },
  async many(db) {
    const statement = db.prepare("INSERT INTO c VALUES (?)");
    await Promise.all(Array.from({ length: 50 }, (_, i) => statement.bind(i).run()));
    return db.prepare("SELECT count(*) AS n FROM c").first("n");
  },
};

export default {
  async fetch(request, env) {
    const check = checks[new URL(request.url).pathname.slice(1)];
    if (!check) return new Response("no such check", { status: 404 });
    try {
      return Response.json(await check(env.DB));
    } catch (e) {
      return new Response(e.stack, { status: 500 });
    }
  },
};
