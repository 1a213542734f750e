# The stock ORM drizzle-orm on @libsql/client.
create_database interop/drizzle
part "drizzle-orm over HTTP" node_tests drizzle drizzle_test.mjs "$url/db/interop/drizzle"
create_database interop/drizzle-ws
part "drizzle-orm as WebSocket" node_tests drizzle drizzle_test.mjs "$socket_url/db/interop/drizzle-ws"
