# The stock Go client's own tests, over HTTP and as a WebSocket.
create_database interop/go
part "Go libsql-client-go over HTTP" go_tests "$tools/libsql-client-go/tests/http" ../../http.test \
  LIBSQL_TEST_HTTP_DB_URL "$url/db/interop/go"
create_database interop/go-ws
part "Go libsql-client-go as WebSocket" go_tests "$tools/libsql-client-go/tests/ws" ../../ws.test \
  LIBSQL_TEST_WS_DB_URL "$socket_url/db/interop/go-ws"
