# The stock ORM GORM on the stock Go client.
create_database interop/gorm
part "GORM over HTTP" go_tests tests/interop/gorm "$tools/gorm/gorm.test" OFFPRINT_URL "$url/db/interop/gorm"
create_database interop/gorm-ws
part "GORM as WebSocket" go_tests tests/interop/gorm "$tools/gorm/gorm.test" OFFPRINT_URL \
  "$socket_url/db/interop/gorm-ws"
