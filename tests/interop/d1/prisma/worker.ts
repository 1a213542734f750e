// A Worker that reaches env.DB through Prisma's client and its D1 adapter.
import { PrismaD1 } from "@prisma/adapter-d1";
import { PrismaClient } from "./generated/client";

export default {
  async fetch(request: Request, env: { DB: never }) {
    const prisma = new PrismaClient({ adapter: new PrismaD1(env.DB) });
    const checks: Record<string, () => Promise<unknown>> = {
      create: () =>
        prisma.user.create({
          data: { email: "a@example.org", name: "A", posts: { create: [{ title: "one", data: new Uint8Array([0, 255]) }] } },
          include: { posts: { select: { id: true, title: true, userId: true } } },
        }),
      unique: () =>
        prisma.user.create({ data: { email: "a@example.org" } }).then(
          () => "no error",
          (e) => [e.code, e.meta?.driverAdapterError?.cause?.constraint?.fields ?? e.meta?.target],
        ),
      read: async () => {
        const user = await prisma.user.findUniqueOrThrow({ where: { email: "a@example.org" }, include: { posts: true } });
        const [post] = user.posts;
        return [user.name, post.title, Array.from(post.data ?? []), post.at instanceof Date && post.at.getFullYear() > 2000];
      },
      update: async () => {
        const { count } = await prisma.post.updateMany({ where: { user: { name: "A" } }, data: { title: "two" } });
        return [count, await prisma.post.count({ where: { title: { contains: "tw" } } })];
      },
      upsert: async () => {
        const user = await prisma.user.upsert({ where: { email: "b@example.org" }, create: { email: "b@example.org" }, update: { name: "B" } });
        return [user.email, user.name, await prisma.user.count()];
      },
      transaction: async () => {
        const [a, b] = await prisma.$transaction([prisma.user.count(), prisma.post.count()]);
        return [a, b];
      },
      raw: () => prisma.$queryRaw`SELECT count(*) AS n, ${"x"} AS x FROM "User"`,
      foreign_key: () =>
        prisma.post.create({ data: { title: "lost", userId: 99 } }).then(
          () => "no error",
          (e) => e.code,
        ),
      remove: async () => {
        await prisma.post.deleteMany();
        return (await prisma.user.deleteMany()).count;
      },
    };
    const check = checks[new URL(request.url).pathname.slice(1)];
    if (!check) return new Response("no such check", { status: 404 });
    try {
      const text = JSON.stringify(await check(), (_, value) => (typeof value === "bigint" ? Number(value) : value));
      return new Response(text, { headers: { "content-type": "application/json" } });
    } catch (e) {
      return new Response((e as Error).stack, { status: 500 });
    }
  },
};
