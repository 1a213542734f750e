// The stock ORM Prisma with @prisma/adapter-libsql against a started server: OFFPRINT_URL is a
// database's address. Run by tests/interop/run, from a folder where they are installed and
// `prisma generate` was run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, beforeEach, describe, it } from "node:test";
import { PrismaLibSql } from "@prisma/adapter-libsql";
import { createClient } from "@libsql/client";
import client from "./generated/index.js";

const { Prisma, PrismaClient } = client;
const url = process.env.OFFPRINT_URL.replace(/\/?$/, "/");
const prisma = new PrismaClient({ adapter: new PrismaLibSql({ url, intMode: "bigint" }) });

before(async () => {
  const plain = createClient({ url });
  await plain.executeMultiple(readFileSync("schema.sql", "utf8"));
  plain.close();
});
beforeEach(() => prisma.author.deleteMany());
after(() => prisma.$disconnect());

const known = (code) => (error) => {
  assert.ok(error instanceof Prisma.PrismaClientKnownRequestError, String(error));
  assert.equal(error.code, code, error.message);
  return true;
};
// The adapter tells P2002 and P2003 by SQLite's numeric code, which @libsql/client drops when the
// database is not a local file; what happened stands in the message all the same.
const constraint = (text) => (error) => {
  assert.match(error.message, /SQLITE_CONSTRAINT/);
  assert.ok(error.message.includes(text), error.message);
  return true;
};

describe("queries", () => {
  it("create, find, update, delete", async () => {
    const ada = await prisma.author.create({ data: { name: "Ada" } });
    assert.deepEqual(await prisma.author.findUnique({ where: { name: "Ada" } }), ada);
    await prisma.author.update({ where: { id: ada.id }, data: { name: "Adele" } });
    assert.equal(await prisma.author.count({ where: { name: { startsWith: "Adel" } } }), 1);
    await prisma.author.delete({ where: { id: ada.id } });
    assert.equal(await prisma.author.findFirst(), null);
  });

  it("carry values of every type", async () => {
    const created = new Date("2024-02-29T12:00:00.123Z");
    const cover = Uint8Array.from([0, 1, 254, 255]);
    const data = { title: "Grüße ✓", price: 1.25, big: 9007199254740993n, cover, created };
    const { books: [book] } = await prisma.author.create({
      data: { name: "Ada", books: { create: data } },
      include: { books: true },
    });
    const { id, authorId, ...rest } = await prisma.book.findUniqueOrThrow({ where: { id: book.id } });
    assert.deepEqual({ ...rest, cover: new Uint8Array(rest.cover) }, data);
  });

  it("follow relations and group", async () => {
    await prisma.author.create({
      data: { name: "Ada", books: { create: [{ title: "a", price: 1 }, { title: "b", price: 3 }] } },
    });
    const [ada] = await prisma.author.findMany({ include: { books: { orderBy: { title: "desc" } } } });
    assert.deepEqual(ada.books.map((book) => book.title), ["b", "a"]);
    const [group] = await prisma.book.groupBy({ by: ["authorId"], _sum: { price: true }, _count: true });
    assert.deepEqual([group._sum.price, group._count], [4, 2]);
    await prisma.author.delete({ where: { id: ada.id } });
    assert.equal(await prisma.book.count(), 0);
  });

  it("createMany and raw SQL", async () => {
    const { count } = await prisma.author.createMany({
      data: Array.from({ length: 250 }, (_, index) => ({ name: `n${index}` })),
    });
    assert.equal(count, 250);
    const rows = await prisma.$queryRaw`SELECT count(*) AS n, ${"x"} AS x FROM Author`;
    assert.deepEqual([Number(rows[0].n), rows[0].x], [250, "x"]);
    assert.equal(await prisma.$executeRaw`DELETE FROM Author WHERE name > ${"n5"}`, 54);
  });

  it("upsert", async () => {
    const upsert = () => prisma.author.upsert({ where: { name: "Ada" }, create: { name: "Ada" }, update: {} });
    const [first, second] = [await upsert(), await upsert()];
    assert.equal(first.id, second.id);
  });
});

describe("errors", () => {
  it("name the unique constraint", async () => {
    await prisma.author.create({ data: { name: "Ada" } });
    await assert.rejects(prisma.author.create({ data: { name: "Ada" } }), constraint("UNIQUE constraint failed: Author.name"));
  });

  it("name the foreign key", async () => {
    await assert.rejects(prisma.book.create({ data: { title: "x", authorId: 987654 } }), constraint("FOREIGN KEY constraint failed"));
  });

  it("tell what is missing", async () => {
    await assert.rejects(prisma.author.delete({ where: { id: 987654 } }), known("P2025"));
    await assert.rejects(prisma.$queryRawUnsafe("SELECT * FROM nowhere"), known("P2010"));
  });
});

describe("transactions", () => {
  it("of several queries are all or nothing", async () => {
    await prisma.$transaction([
      prisma.author.create({ data: { name: "Ada" } }),
      prisma.author.create({ data: { name: "Bob" } }),
    ]);
    await assert.rejects(prisma.$transaction([
      prisma.author.create({ data: { name: "Cleo" } }),
      prisma.author.create({ data: { name: "Ada" } }),
    ]), constraint("UNIQUE constraint failed: Author.name"));
    assert.equal(await prisma.author.count(), 2);
  });

  it("are interactive", async () => {
    await prisma.$transaction(async (tx) => {
      const ada = await tx.author.create({ data: { name: "Ada" } });
      await tx.book.create({ data: { title: "a", authorId: ada.id } });
      assert.equal(await tx.book.count(), 1);
    });
    await assert.rejects(prisma.$transaction(async (tx) => {
      await tx.author.deleteMany();
      throw new Error("enough");
    }), /enough/);
    assert.equal(await prisma.book.count(), 1);
  });
});
