// The stock ORM drizzle-orm on @libsql/client against a started server: OFFPRINT_URL is a database's
// address. Run by tests/interop/run, from a folder where both are installed.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import { createClient } from "@libsql/client";
import { asc, count, eq, gt, relations, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql";
import { migrate } from "drizzle-orm/libsql/migrator";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";

const authors = sqliteTable("authors", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  name: text("name").notNull().unique(),
  joined: integer("joined", { mode: "timestamp" }).notNull(),
});
const books = sqliteTable("books", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  authorId: integer("author_id").notNull().references(() => authors.id, { onDelete: "cascade" }),
  title: text("title").notNull(),
  price: real("price"),
  cover: blob("cover", { mode: "buffer" }),
  tags: text("tags", { mode: "json" }),
  pages: integer("pages").notNull().default(0),
});
const schema = {
  authors,
  books,
  authorsRelations: relations(authors, ({ many }) => ({ books: many(books) })),
  booksRelations: relations(books, ({ one }) => ({
    author: one(authors, { fields: [books.authorId], references: [authors.id] }),
  })),
};

const client = createClient({ url: process.env.OFFPRINT_URL.replace(/\/?$/, "/") });
const db = drizzle(client, { schema });
const joined = new Date("2024-02-29T12:00:00Z");

before(() => migrate(db, { migrationsFolder: "migrations" }));
beforeEach(() => db.delete(authors));
after(() => client.close());

const constraint = (error) => {
  const cause = error.cause ?? error;
  assert.equal(cause.code, "SQLITE_CONSTRAINT", String(cause));
  return true;
};

describe("migrate", () => {
  it("applies each migration once", async () => {
    await migrate(db, { migrationsFolder: "migrations" });
    const rows = await db.all(sql`SELECT count(*) AS n FROM __drizzle_migrations`);
    assert.equal(rows[0].n, 2);
    const columns = await db.all(sql`SELECT name FROM pragma_table_info('books')`);
    assert.deepEqual(columns.map((column) => column.name),
      ["id", "author_id", "title", "price", "cover", "tags", "pages"]);
  });
});

describe("queries", () => {
  it("insert with returning, and select", async () => {
    const [author] = await db.insert(authors).values({ name: "Ada", joined }).returning();
    assert.deepEqual(author, { id: author.id, name: "Ada", joined });
    const cover = Buffer.from([0, 1, 255]);
    await db.insert(books).values([
      { authorId: author.id, title: "One", price: 1.5, cover, tags: ["a", { b: null }] },
      { authorId: author.id, title: "Two", pages: 7 },
    ]);
    const rows = await db.select().from(books).orderBy(asc(books.title));
    assert.deepEqual(rows.map(({ id, ...rest }) => rest), [
      { authorId: author.id, title: "One", price: 1.5, cover, tags: ["a", { b: null }], pages: 0 },
      { authorId: author.id, title: "Two", price: null, cover: null, tags: null, pages: 7 },
    ]);
  });

  it("join, aggregate, update and delete", async () => {
    const [ada, bob] = await db.insert(authors)
      .values([{ name: "Ada", joined }, { name: "Bob", joined }]).returning();
    await db.insert(books).values([
      { authorId: ada.id, title: "One", pages: 10 },
      { authorId: ada.id, title: "Two", pages: 20 },
      { authorId: bob.id, title: "Three", pages: 30 },
    ]);
    const counts = await db.select({ name: authors.name, books: count() }).from(books)
      .innerJoin(authors, eq(books.authorId, authors.id)).groupBy(authors.id).orderBy(authors.name);
    assert.deepEqual(counts, [{ name: "Ada", books: 2 }, { name: "Bob", books: 1 }]);
    const updated = await db.update(books).set({ pages: sql`${books.pages} + 1` }).where(gt(books.pages, 15));
    assert.equal(updated.rowsAffected, 2);
    await db.delete(authors).where(eq(authors.id, ada.id));
    assert.deepEqual(await db.select({ title: books.title }).from(books), [{ title: "Three" }]);
  });

  it("follow relations", async () => {
    const [ada] = await db.insert(authors).values({ name: "Ada", joined }).returning();
    await db.insert(books).values({ authorId: ada.id, title: "One" });
    const found = await db.query.authors.findMany({ with: { books: { columns: { title: true } } } });
    assert.deepEqual(found, [{ id: ada.id, name: "Ada", joined, books: [{ title: "One" }] }]);
    const book = await db.query.books.findFirst({ with: { author: true } });
    assert.equal(book.author.name, "Ada");
  });

  it("insert or update", async () => {
    await db.insert(authors).values({ name: "Ada", joined: new Date(0) });
    await db.insert(authors).values({ name: "Ada", joined })
      .onConflictDoUpdate({ target: authors.name, set: { joined } });
    assert.deepEqual((await db.select().from(authors)).map((author) => author.joined), [joined]);
  });

  it("prepare", async () => {
    const prepared = db.select().from(authors).where(eq(authors.name, sql.placeholder("name"))).prepare();
    assert.deepEqual(await prepared.all({ name: "nobody" }), []);
    await db.insert(authors).values({ name: "Ada", joined });
    assert.equal((await prepared.get({ name: "Ada" })).name, "Ada");
  });

  it("name the constraint that failed", async () => {
    await db.insert(authors).values({ name: "Ada", joined });
    await assert.rejects(db.insert(authors).values({ name: "Ada", joined }).run(), constraint);
    await assert.rejects(db.insert(books).values({ authorId: 987654, title: "x" }).run(), constraint);
  });
});

describe("transactions", () => {
  it("commit", async () => {
    const id = await db.transaction(async (tx) => {
      const [author] = await tx.insert(authors).values({ name: "Ada", joined }).returning();
      await tx.insert(books).values({ authorId: author.id, title: "One" });
      assert.equal((await tx.select().from(books)).length, 1);
      return author.id;
    });
    assert.equal((await db.select().from(authors))[0].id, id);
  });

  it("roll back when they throw", async () => {
    await assert.rejects(db.transaction(async (tx) => {
      await tx.insert(authors).values({ name: "Ada", joined });
      throw new Error("enough");
    }), /enough/);
    await assert.rejects(db.transaction(async (tx) => {
      await tx.insert(authors).values({ name: "Ada", joined });
      tx.rollback();
    }));
    assert.deepEqual(await db.select().from(authors), []);
  });

  it("nest as savepoints", async () => {
    await db.transaction(async (tx) => {
      await tx.insert(authors).values({ name: "Ada", joined });
      await assert.rejects(tx.transaction(async (inner) => {
        await inner.insert(authors).values({ name: "Bob", joined });
        throw new Error("only this");
      }), /only this/);
      await tx.transaction((inner) => inner.insert(authors).values({ name: "Cleo", joined }).run());
    });
    const names = await db.select({ name: authors.name }).from(authors).orderBy(authors.name);
    assert.deepEqual(names.map((row) => row.name), ["Ada", "Cleo"]);
  });

  it("take their turn", async () => {
    const [author] = await db.insert(authors).values({ name: "Ada", joined }).returning();
    const [book] = await db.insert(books).values({ authorId: author.id, title: "One" }).returning();
    await Promise.all(Array.from({ length: 6 }, () => db.transaction(async (tx) => {
      const [{ pages }] = await tx.select({ pages: books.pages }).from(books).where(eq(books.id, book.id));
      await tx.update(books).set({ pages: pages + 1 }).where(eq(books.id, book.id));
    }, { behavior: "immediate" })));
    assert.equal((await db.select().from(books))[0].pages, 6);
  });
});

describe("batch", () => {
  it("answers each query", async () => {
    const [inserted, , read] = await db.batch([
      db.insert(authors).values({ name: "Ada", joined }).returning({ name: authors.name }),
      db.insert(authors).values({ name: "Bob", joined }),
      db.select({ n: count() }).from(authors),
    ]);
    assert.deepEqual(inserted, [{ name: "Ada" }]);
    assert.deepEqual(read, [{ n: 2 }]);
  });

  it("is all or nothing", async () => {
    await assert.rejects(db.batch([
      db.insert(authors).values({ name: "Ada", joined }),
      db.insert(authors).values({ name: "Ada", joined }),
    ]), constraint);
    assert.deepEqual(await db.select().from(authors), []);
  });
});
