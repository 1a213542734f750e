// The same Worker in stock workerd, whose binding speaks to the server directly, and in Miniflare,
// whose remote binding goes through /db/NAME/d1-proxy.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { readFile } from "node:fs/promises";
import { Miniflare } from "miniflare";
import workerd from "workerd";
import { createDatabase, startWorkerd, url } from "./server.mjs";

const hint = /^D1_ERROR: BEGIN is not available.*\/db\/NAME\/.*: SQLITE_ERROR$/;

function runs(name, start) {
  describe(name, () => {
    let ask, stop;
    before(async () => ({ ask, stop } = await start()));
    after(() => stop());
    const check = async (path) => {
      const response = await ask(`/${path}`);
      const text = await response.text();
      assert.equal(response.status, 200, text);
      return JSON.parse(text);
    };

    test("exec", async () => assert.equal(await check("setup"), 2));
    test("run", async () =>
      assert.deepEqual(await check("run"), { success: true, results: [], changes: 1, id: 3, changed: true, written: 1 }));
    test("all", async () =>
      assert.deepEqual(await check("all"), {
        results: [{ id: 1, v: "one" }, { id: 2, v: "two" }], primary: true, size: true, changed: false,
      }));
    test("first", async () => assert.deepEqual(await check("first"), [{ id: 2, v: "two" }, "two", null]));
    test("raw", async () =>
      assert.deepEqual(await check("raw"), [[[1, 2, null]], [["a", "a", "NULL"], [1, 2, null]]]));
    test("blobs", async () =>
      assert.deepEqual(await check("blobs"), { b: [0, 1, 254, 255], n: -0.25, type: "blob", empty: [] }));
    test("values", async () =>
      assert.deepEqual(await check("values"), {
        a: "ä\u{1f600}\n\"", b: 1, c: null, d: 1e300, e: "integer", f: 9007199254740991,
      }));
    test("batch", async () =>
      assert.deepEqual(await check("batch"), [[true, [], 1], [true, [{ n: 4 }], 0], [true, [], 1]]));
    test("a batch that fails leaves nothing", async () =>
      assert.deepEqual(await check("batch_fails"), ["D1_ERROR: UNIQUE constraint failed: t.v: SQLITE_CONSTRAINT", 3]));
    test("errors", async () => {
      const [missing, unique, begin, exec, params] = await check("errors");
      assert.equal(missing, "D1_ERROR: no such table: nope: SQLITE_ERROR");
      assert.equal(unique, "D1_ERROR: UNIQUE constraint failed: t.v: SQLITE_CONSTRAINT");
      assert.match(begin, hint);
      assert.equal(exec, "D1_EXEC_ERROR: Error in line 1: SELECT * FROM nope: no such table: nope: SQLITE_ERROR");
      assert.match(params, /^D1_ERROR: .*: ARGS_INVALID$/);
    });
    test("sessions", async () =>
      assert.deepEqual(await check("session"), { before: null, n: 0, shape: true, grows: true, same: true }));
    test("fifty at once", async () => assert.equal(await check("many"), 51));
  });
}

runs("workerd", async () => {
  await createDatabase("workerd");
  const worker = await startWorkerd(workerd.default ?? workerd, process.cwd(), "workerd", "worker.mjs");
  return { ask: (path) => fetch(worker.address + path), stop: worker.stop };
});

runs("Miniflare", async () => {
  await createDatabase("miniflare");
  const miniflare = new Miniflare({
    modules: [{ type: "ESModule", path: "worker.mjs", contents: await readFile("worker.mjs", "utf8") }],
    compatibilityDate: "2026-04-01",
    d1Databases: { DB: { id: "any", remoteProxyConnectionString: new URL(`${url}/db/miniflare/d1-proxy`) } },
  });
  return { ask: (path) => miniflare.dispatchFetch(`http://worker${path}`), stop: () => miniflare.dispose() };
});
