// ORMs over the binding: Workers bundled by wrangler, drizzle's in workerd, Prisma's in Miniflare.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { execFileSync } from "node:child_process";
import { copyFile, readFile, readdir } from "node:fs/promises";
import { Miniflare } from "miniflare";
import workerd from "workerd";
import { createDatabase, startWorkerd, url } from "./server.mjs";

function bundle(module, folder, flags = []) {
  execFileSync(
    "node_modules/.bin/wrangler",
    ["deploy", module, "--dry-run", "--outdir", folder, "--name", "interop", "--compatibility-date", "2026-04-01",
      ...flags.flatMap((flag) => ["--compatibility-flag", flag])],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
}

function checker(ask) {
  return async (path) => {
    const response = await ask(`/${path}`);
    const body = await response.text();
    assert.equal(response.status, 200, body);
    return JSON.parse(body);
  };
}

describe("drizzle-orm on D1", () => {
  let worker, check;
  before(async () => {
    await createDatabase("drizzle-d1");
    bundle("drizzle_worker.ts", "dist-drizzle");
    await copyFile("dist-drizzle/drizzle_worker.js", "drizzle_bundle.mjs");
    worker = await startWorkerd(workerd.default ?? workerd, process.cwd(), "drizzle-d1", "drizzle_bundle.mjs");
    check = checker((path) => fetch(worker.address + path));
  });
  after(() => worker?.stop());

  test("schema", async () => assert.equal(await check("setup"), "done"));
  test("insert and returning", async () => {
    const [a, b] = await check("insert");
    assert.deepEqual(a, { id: 1, name: "a", admin: true, made: "1970-01-02T00:00:00.000Z", extra: { x: [1] }, weight: 2 });
    assert.deepEqual(b, { id: 2, name: "b", admin: false, made: null, extra: null, weight: 0.5 });
  });
  test("select", async () => assert.deepEqual(await check("select"), [{ name: "a", weight: 2 }]));
  test("relational query", async () => assert.equal((await check("get")).id, 2));
  test("batch", async () => assert.deepEqual(await check("batch"), [[{ id: 2, name: "c" }], [{ n: 2 }]]));
  test("a batch that fails leaves nothing", async () => assert.deepEqual(await check("batch_fails"), [true, 1]));
  test("upsert", async () => assert.deepEqual(await check("upsert"), [{ weight: 9 }]));
  test("values", async () => assert.deepEqual(await check("values"), [[1, "a"], [2, "c"]]));
});

describe("Prisma on D1", () => {
  let miniflare, check;
  before(async () => {
    await createDatabase("prisma-d1");
    const made = await fetch(`${url}/db/prisma-d1/execute`, {
      method: "POST",
      body: JSON.stringify({ sql: await readFile("prisma/schema.sql", "utf8") }),
    });
    assert.equal((await made.json()).success, true);
    // Generating a client needs no schema engine, which would be fetched; any program's name will do.
    execFileSync("../node_modules/.bin/prisma", ["generate"], {
      cwd: "prisma",
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: "/bin/true", PRISMA_HIDE_UPDATE_MESSAGE: "1", CHECKPOINT_DISABLE: "1" },
    });
    bundle("prisma/worker.ts", "dist-prisma", ["nodejs_compat"]);
    const wasm = (await readdir("dist-prisma")).filter((name) => /\.wasm/.test(name));
    miniflare = new Miniflare({
      modules: [
        { type: "ESModule", path: "worker.js", contents: await readFile("dist-prisma/worker.js", "utf8") },
        ...(await Promise.all(wasm.map(async (name) => ({ type: "CompiledWasm", path: name, contents: await readFile(`dist-prisma/${name}`) })))),
      ],
      compatibilityDate: "2026-04-01",
      compatibilityFlags: ["nodejs_compat"],
      d1Databases: { DB: { id: "any", remoteProxyConnectionString: new URL(`${url}/db/prisma-d1/d1-proxy`) } },
    });
    check = checker((path) => miniflare.dispatchFetch(`http://worker${path}`));
  });
  after(() => miniflare?.dispose());

  test("create with a relation", async () =>
    assert.deepEqual(await check("create"), {
      id: 1, email: "a@example.org", name: "A", posts: [{ id: 1, title: "one", userId: 1 }],
    }));
  test("a unique constraint", async () => assert.deepEqual(await check("unique"), ["P2002", ["email"]]));
  test("read", async () => assert.deepEqual(await check("read"), ["A", "one", [0, 255], true]));
  test("update", async () => assert.deepEqual(await check("update"), [1, 1]));
  test("upsert", async () => assert.deepEqual(await check("upsert"), ["b@example.org", null, 2]));
  test("transaction", async () => assert.deepEqual(await check("transaction"), [2, 1]));
  test("raw SQL", async () => assert.deepEqual(await check("raw"), [{ n: 2, x: "x" }]));
  test("a foreign key", async () => assert.equal(await check("foreign_key"), "P2003"));
  test("delete", async () => assert.equal(await check("remove"), 2));
});
