# The stock ORM Prisma with @prisma/adapter-libsql. `prisma migrate` and `prisma db push` need an engine
# that is no package, so the tables come from a script.
create_database interop/prisma
part "prisma over HTTP" node_tests prisma prisma_test.mjs "$url/db/interop/prisma"
