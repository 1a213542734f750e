# The stock npm client @libsql/client, over HTTP and as a WebSocket.
create_database interop/npm
part "npm @libsql/client over HTTP" node_tests libsql-client client_test.mjs "$url/db/interop/npm"
create_database interop/npm-ws
part "npm @libsql/client as WebSocket" node_tests libsql-client client_test.mjs "$socket_url/db/interop/npm-ws"
