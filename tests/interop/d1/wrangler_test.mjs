// Stock wrangler's d1 commands against the REST interface, as somebody types them.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { url } from "./server.mjs";

const program = resolve("node_modules/.bin/wrangler");
const run = promisify(execFile);

describe("wrangler", () => {
  let folder;
  before(async () => (folder = await mkdtemp(join(tmpdir(), "offprint-wrangler-"))));
  after(() => rm(folder, { recursive: true, force: true }));

  // What it printed. Rejects when it fails.
  async function wrangler(...args) {
    const child = run(program, ["d1", ...args], {
      cwd: folder,
      timeout: 60_000,
      env: {
        ...process.env,
        HOME: folder,
        CI: "1",
        WRANGLER_SEND_METRICS: "false",
        CLOUDFLARE_API_BASE_URL: `${url}/client/v4`,
        CLOUDFLARE_API_TOKEN: "any",
        CLOUDFLARE_ACCOUNT_ID: "any",
      },
    });
    // Some failures are told on stdout, as JSON.
    return (await child.catch((e) => Promise.reject(new Error(`${e.message}\n${e.stdout}`)))).stdout;
  }
  const execute = async (sql) =>
    JSON.parse(await wrangler("execute", "wr", "--remote", "--json", "--command", sql)).map((one) => one.results);

  test("create and list", async () => {
    assert.match(await wrangler("create", "wr"), /Successfully created DB 'wr'/);
    const [found] = JSON.parse(await wrangler("list", "--json")).filter((one) => one.name === "wr");
    await writeFile(
      join(folder, "wrangler.json"),
      JSON.stringify({
        name: "interop",
        compatibility_date: "2026-04-01",
        d1_databases: [{ binding: "DB", database_name: "wr", database_id: found.uuid }],
      }),
    );
    await assert.rejects(wrangler("create", "wr"), /already exists/);
  });
  test("execute --command", async () => {
    assert.deepEqual(await execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES ('a;'); SELECT v FROM t"), [
      [], [], [{ v: "a;" }],
    ]);
    await assert.rejects(execute("SELECT nope"), /no such column: nope: SQLITE_ERROR/);
  });
  test("migrations create, list and apply", async () => {
    await wrangler("migrations", "create", "wr", "first");
    await writeFile(
      join(folder, "migrations/0001_first.sql"),
      "-- a trigger\nCREATE TABLE log(v);\nCREATE TRIGGER g AFTER INSERT ON t BEGIN\n  INSERT INTO log VALUES (new.v);\nEND;\n" +
        "INSERT INTO t(v) VALUES ('b');\n",
    );
    assert.match(await wrangler("migrations", "list", "wr", "--remote"), /0001_first\.sql/);
    assert.match(await wrangler("migrations", "apply", "wr", "--remote"), /✅/);
    assert.match(await wrangler("migrations", "list", "wr", "--remote"), /No migrations to apply/);
    assert.deepEqual(await execute("SELECT v FROM log"), [[{ v: "b" }]]);
    await writeFile(join(folder, "migrations/0002_bad.sql"), "DELETE FROM t; INSERT INTO nope VALUES (1);");
    await assert.rejects(wrangler("migrations", "apply", "wr", "--remote"));
    assert.deepEqual(await execute("SELECT count(*) AS n FROM t"), [[{ n: 2 }]]);
  });
  test("execute --file", async () => {
    const rows = Array.from({ length: 5000 }, (_, i) => `INSERT INTO t(v) VALUES ('row ${i}; it''s');`);
    await writeFile(join(folder, "rows.sql"), `PRAGMA defer_foreign_keys=TRUE;\n${rows.join("\n")}\n`);
    assert.match(await wrangler("execute", "wr", "--remote", "--file", "rows.sql", "--yes"), /500[0-9] queries/);
    assert.deepEqual(await execute("SELECT count(*) AS n FROM t"), [[{ n: 5002 }]]);
    await writeFile(join(folder, "bad.sql"), "DELETE FROM t;\nINSERT INTO t VALUES (1, 'x');\nINSERT INTO nope VALUES (1);\n");
    await assert.rejects(wrangler("execute", "wr", "--remote", "--file", "bad.sql", "--yes"), /no such table: nope/);
    assert.deepEqual(await execute("SELECT count(*) AS n FROM t"), [[{ n: 5002 }]]);
  });
  test("export", async () => {
    await wrangler("export", "wr", "--remote", "--output", "all.sql", "--skip-confirmation");
    const all = await readFile(join(folder, "all.sql"), "utf8");
    assert.match(all, /CREATE TRIGGER g/);
    assert.equal(all.match(/^INSERT INTO "?t"?[ (]/gm).length, 5002);
    await wrangler("export", "wr", "--remote", "--output", "schema.sql", "--no-data", "--table", "t", "--skip-confirmation");
    const schema = await readFile(join(folder, "schema.sql"), "utf8");
    assert.match(schema, /CREATE TABLE t\(/);
    assert.doesNotMatch(schema, /INSERT INTO "?t"?[ (]|CREATE TABLE log/);
    // What was exported loads into another database.
    await wrangler("create", "wr-copy");
    await wrangler("execute", "wr-copy", "--remote", "--file", "all.sql", "--yes");
    const [copied] = JSON.parse(await wrangler("execute", "wr-copy", "--remote", "--json", "--command", "SELECT count(*) AS n, max(v) AS v FROM t"));
    assert.deepEqual(copied.results, [{ n: 5002, v: "row 9; it's" }]);
  });
  test("info and insights", async () => {
    const info = JSON.parse(await wrangler("info", "wr", "--json"));
    assert.equal(info.name, "wr");
    assert.equal(info.num_tables, 3);
    assert.ok(info.database_size > 100_000);
    const insights = JSON.parse((await wrangler("insights", "wr", "--json")).match(/\[[^]*\]/)[0]);
    assert.ok(insights.length > 0 && insights.every((one) => one.query && one.numberOfTimesRun > 0));
  });
  test("time-travel", async () => {
    const { bookmark } = JSON.parse(await wrangler("time-travel", "info", "wr", "--json"));
    assert.match(bookmark, /^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$/);
    const restored = JSON.parse(await wrangler("time-travel", "restore", "wr", "--json", `--bookmark=${bookmark}`));
    assert.equal(restored.previous_bookmark, bookmark);
    const count = "SELECT count(*) AS n FROM log";
    const [[before]] = await execute(count);
    await execute("DELETE FROM log");
    assert.deepEqual(await execute(count), [[{ n: 0 }]]);
    const undo = JSON.parse(await wrangler("time-travel", "restore", "wr", "--json", `--bookmark=${bookmark}`));
    assert.deepEqual(await execute(count), [[before]]);
    await wrangler("time-travel", "restore", "wr", "--json", `--bookmark=${undo.previous_bookmark}`);
    assert.deepEqual(await execute(count), [[{ n: 0 }]]);
    const then = new Date(Date.now() - 3_600_000).toISOString();
    await assert.rejects(wrangler("time-travel", "info", "wr", "--json", `--timestamp=${then}`), /no content/);
  });
  test("delete", async () => {
    await wrangler("delete", "wr", "--skip-confirmation");
    assert.deepEqual(JSON.parse(await wrangler("list", "--json")).filter((one) => one.name === "wr"), []);
  });
});
