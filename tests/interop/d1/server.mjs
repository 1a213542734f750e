// Where the server under test is, and what the tests of this folder share.
import { spawn } from "node:child_process";
import { createServer } from "node:net";

export const url = process.env.OFFPRINT_URL;

export async function createDatabase(name) {
  const made = await fetch(`${url}/v1/databases`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name }),
  });
  if (!made.ok) throw new Error(await made.text());
}

export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

// Runs a Worker's module in stock workerd, its binding DB answered by `database` of the server.
export async function startWorkerd(workerd, folder, database, module, flags = []) {
  const { writeFile } = await import("node:fs/promises");
  const port = await freePort();
  const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "backend", external = (address = "${new URL(url).host}",
      http = (injectRequestHeaders = [(name = "x-namespace", value = "${database}")])))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")]);
const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "${module}")],
  compatibilityDate = "2026-04-01",
  compatibilityFlags = [${flags.map((flag) => `"${flag}"`).join(", ")}],
  bindings = [(name = "DB", wrapped = (moduleName = "cloudflare-internal:d1-api",
    innerBindings = [(name = "fetcher", service = "backend")]))]);
`;
  const file = `${folder}/${module}.capnp`;
  await writeFile(file, config);
  const child = spawn(workerd, ["serve", file], { stdio: ["ignore", "inherit", "inherit"] });
  const address = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      await fetch(`${address}/ready`);
      break;
    } catch (e) {
      if (Date.now() > deadline || child.exitCode !== null) throw e;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return { address, stop: () => child.kill() };
}
