// The REST interface through the stock `cloudflare` SDK.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import Cloudflare, { NotFoundError, BadRequestError, ConflictError } from "cloudflare";
import { url } from "./server.mjs";

const account_id = "any";
const { database } = new Cloudflare({ apiToken: "any", baseURL: `${url}/client/v4`, maxRetries: 0 }).d1;

async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

describe("cloudflare SDK", () => {
  let id;
  test("create", async () => {
    const made = await database.create({ account_id, name: "sdk" });
    id = made.uuid;
    assert.equal(made.name, "sdk");
    assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    await assert.rejects(database.create({ account_id, name: "sdk" }), ConflictError);
    await assert.rejects(database.create({ account_id, name: "No Name" }), BadRequestError);
  });
  test("list", async () => {
    const named = await all(database.list({ account_id, name: "sdk" }));
    assert.deepEqual(named.map((one) => one.uuid), [id]);
    for (let i = 0; i < 12; ++i) await database.create({ account_id, name: `sdk-${i}` });
    const pages = await all(database.list({ account_id, name: "sdk-", per_page: 10 }));
    assert.equal(new Set(pages.map((one) => one.uuid)).size, 12);
  });
  test("query", async () => {
    const [made, counted] = await all(
      database.query(id, { account_id, sql: "CREATE TABLE t(v); SELECT count(*) AS n FROM t" }),
    );
    assert.equal(made.meta.changed_db, true);
    assert.deepEqual(counted.results, [{ n: 0 }]);
    const [inserted] = await all(
      database.query(id, { account_id, sql: "INSERT INTO t VALUES (?), (?)", params: ["a", "b"] }),
    );
    assert.equal(inserted.meta.changes, 2);
    const batch = await all(
      database.query(id, { account_id, batch: [{ sql: "DELETE FROM t WHERE v = ?", params: ["b"] }, { sql: "SELECT * FROM t" }] }),
    );
    assert.deepEqual(batch[1].results, [{ v: "a" }]);
  });
  test("raw", async () => {
    const [result] = await all(database.raw(id, { account_id, sql: "SELECT v, v FROM t" }));
    assert.deepEqual(result.results, { columns: ["v", "v"], rows: [["a", "a"]] });
  });
  test("errors", async () => {
    await assert.rejects(database.query(id, { account_id, sql: "SELECT nope" }).then(all), (e) => {
      assert.ok(e instanceof BadRequestError);
      assert.deepEqual(e.errors[0], { code: 7500, message: "no such column: nope: SQLITE_ERROR" });
      return true;
    });
    await assert.rejects(database.get("nope", { account_id }), NotFoundError);
  });
  test("get, edit and update", async () => {
    const seen = await database.get(id, { account_id });
    assert.equal(seen.num_tables, 1);
    assert.equal(seen.file_size, 8192);
    const read_replication = { mode: "auto" };
    assert.deepEqual((await database.edit(id, { account_id, read_replication })).read_replication, read_replication);
    assert.deepEqual((await database.update(id, { account_id, read_replication })).read_replication, read_replication);
  });
  test("time travel", async () => {
    const { bookmark } = await database.timeTravel.getBookmark(id, { account_id });
    const restored = await database.timeTravel.restore(id, { account_id, bookmark });
    assert.equal(restored.previous_bookmark, bookmark);
  });
  test("export and import", async () => {
    const exported = await database.export(id, { account_id, output_format: "polling" });
    assert.equal(exported.status, "complete");
    const sql = await (await fetch(exported.result.signed_url)).text();
    assert.match(sql, /CREATE TABLE t/);
    const { createHash } = await import("node:crypto");
    const text = `DROP TABLE t;\n${sql}\nINSERT INTO t VALUES ('c');\n`;
    const etag = createHash("md5").update(text).digest("hex");
    const init = await database.import(id, { account_id, action: "init", etag });
    const put = await fetch(init.upload_url, { method: "PUT", body: text });
    assert.equal(put.status, 200, await put.text());
    assert.equal(put.headers.get("etag"), `"${etag}"`);
    let state = await database.import(id, { account_id, action: "ingest", etag, filename: init.filename });
    while (state.status === "active")
      state = await database.import(id, { account_id, action: "poll", current_bookmark: state.at_bookmark });
    assert.equal(state.status, "complete", JSON.stringify(state));
    const [result] = await all(database.query(id, { account_id, sql: "SELECT v FROM t ORDER BY v" }));
    assert.deepEqual(result.results, [{ v: "a" }, { v: "c" }]);
  });
  test("delete", async () => {
    assert.equal(await database.delete(id, { account_id }), null);
    await assert.rejects(database.get(id, { account_id }), NotFoundError);
  });
});
