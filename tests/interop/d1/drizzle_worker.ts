// A Worker that reaches env.DB through drizzle-orm.
import { and, count, eq, gt, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/d1";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";

const users = sqliteTable("users", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  name: text("name").notNull().unique(),
  admin: integer("admin", { mode: "boolean" }).default(false),
  made: integer("made", { mode: "timestamp" }),
  extra: text("extra", { mode: "json" }),
  weight: real("weight"),
});
const posts = sqliteTable("posts", {
  id: integer("id").primaryKey(),
  userId: integer("user_id").references(() => users.id),
  data: blob("data"),
});

export default {
  async fetch(request: Request, env: { DB: never }) {
    const db = drizzle(env.DB, { schema: { users, posts } });
    const checks: Record<string, () => Promise<unknown>> = {
      setup: async () => {
        await db.run(sql`CREATE TABLE users(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, admin INTEGER DEFAULT 0, made INTEGER, extra TEXT, weight REAL)`);
        await db.run(sql`CREATE TABLE posts(id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id), data BLOB)`);
        return "done";
      },
      insert: () =>
        db.insert(users)
          .values([
            { name: "a", admin: true, made: new Date(86_400_000), extra: { x: [1] }, weight: 2 },
            { name: "b", weight: 0.5 },
          ])
          .returning(),
      select: () =>
        db.select({ name: users.name, weight: users.weight }).from(users).where(and(gt(users.weight, 1), eq(users.admin, true))),
      get: () => db.query.users.findFirst({ where: eq(users.name, "b") }).then((row) => row ?? null),
      batch: () =>
        db.batch([
          db.insert(posts).values({ id: 1, userId: 1 }),
          db.update(users).set({ name: "c" }).where(eq(users.name, "b")).returning({ id: users.id, name: users.name }),
          db.select({ n: count() }).from(users).leftJoin(posts, eq(users.id, posts.userId)),
        ]).then(([, updated, counted]) => [updated, counted]),
      batch_fails: async () => {
        let failed = false;
        try {
          await db.batch([db.delete(posts), db.insert(users).values({ name: "a" })]);
        } catch (e) {
          failed = String((e as Error).cause ?? e).includes("UNIQUE constraint failed: users.name");
        }
        return [failed, await db.$count(posts)];
      },
      upsert: () =>
        db.insert(users).values({ name: "a", weight: 9 })
          .onConflictDoUpdate({ target: users.name, set: { weight: 9 } }).returning({ weight: users.weight }),
      values: () => db.values(sql`SELECT id, name FROM users ORDER BY id`),
    };
    const check = checks[new URL(request.url).pathname.slice(1)];
    if (!check) return new Response("no such check", { status: 404 });
    try {
      return Response.json(await check());
    } catch (e) {
      return new Response(`${(e as Error).stack} ${(e as Error).cause}`, { status: 500 });
    }
  },
};
