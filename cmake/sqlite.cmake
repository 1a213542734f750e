# Target sqlite3: SQLite's amalgamation, compiled with the features that Offprint needs.
# Source, in this order: -DSQLITE_SOURCE_DIR=DIR, the environment's SQLITE_SOURCE_DIR, a folder fetched
# earlier, the crate libsqlite3-sys (cargo vendor), the npm package better-sqlite3 (npm pack).
# Whatever brings it, sqlite3.c must have one of the hashes below: both are SQLite 3.54.1 and differ
# only in the parser tables of UPDATE … LIMIT.
set(SQLITE_SOURCE_DIR "$ENV{SQLITE_SOURCE_DIR}" CACHE PATH
    "folder with sqlite3.c and sqlite3.h; empty: fetch the pinned package")
set(sqlite_sha256_crate 0c657666d819f261cc4007526ad57e1669de9949df7a8ea847aa284a2bf0ee52)
set(sqlite_sha256_npm 75a4760a7b9727a4c4c877aec92eacf39e52a8f2921ce00bd33be6d3a8e8e254)

function(offprint_fetch_sqlite_by_cargo vendor_dir)
  find_program(CARGO cargo)
  if(NOT CARGO)
    return()
  endif()
  set(manifest_dir "${CMAKE_BINARY_DIR}/sqlite-source")
  file(WRITE "${manifest_dir}/lib.rs" "")
  file(WRITE "${manifest_dir}/Cargo.toml" "[package]\nname = \"sqlite-source\"\nversion = \"0.0.0\"\n"
    "[lib]\npath = \"lib.rs\"\n[dependencies]\n"
    "libsqlite3-sys = { version = \"=0.39.1\", default-features = false }\n[workspace]\n")
  execute_process(
    COMMAND "${CARGO}" vendor --quiet --manifest-path "${manifest_dir}/Cargo.toml" "${vendor_dir}/cargo"
    OUTPUT_QUIET)
endfunction()

function(offprint_fetch_sqlite_by_npm vendor_dir)
  find_program(NPM npm)
  if(NOT NPM)
    return()
  endif()
  file(MAKE_DIRECTORY "${vendor_dir}/npm")
  execute_process(COMMAND "${NPM}" pack --silent better-sqlite3@13.2.0
    WORKING_DIRECTORY "${vendor_dir}/npm" OUTPUT_QUIET)
  file(GLOB archive "${vendor_dir}/npm/better-sqlite3-*.tgz")
  if(archive)
    execute_process(COMMAND ${CMAKE_COMMAND} -E tar xzf "${archive}" WORKING_DIRECTORY "${vendor_dir}/npm")
  endif()
endfunction()

set(vendor_dir "${CMAKE_SOURCE_DIR}/build/third_party")
set(cargo_dir "${vendor_dir}/cargo/libsqlite3-sys/sqlite3")
set(npm_dir "${vendor_dir}/npm/package/deps/sqlite3")
if(SQLITE_SOURCE_DIR)
  set(sqlite_dir "${SQLITE_SOURCE_DIR}")
else()
  if(NOT EXISTS "${cargo_dir}/sqlite3.c" AND NOT EXISTS "${npm_dir}/sqlite3.c")
    offprint_fetch_sqlite_by_cargo("${vendor_dir}")
    if(NOT EXISTS "${cargo_dir}/sqlite3.c")
      offprint_fetch_sqlite_by_npm("${vendor_dir}")
    endif()
  endif()
  if(EXISTS "${cargo_dir}/sqlite3.c")
    set(sqlite_dir "${cargo_dir}")
  else()
    set(sqlite_dir "${npm_dir}")
  endif()
endif()
if(NOT EXISTS "${sqlite_dir}/sqlite3.c")
  message(FATAL_ERROR "SQLite's source could not be fetched: needs cargo >= 1.88 or npm, "
    "or -DSQLITE_SOURCE_DIR=DIR with sqlite3.c and sqlite3.h")
endif()
file(SHA256 "${sqlite_dir}/sqlite3.c" sqlite_sha256)
if(NOT sqlite_sha256 STREQUAL sqlite_sha256_crate AND NOT sqlite_sha256 STREQUAL sqlite_sha256_npm)
  message(FATAL_ERROR "${sqlite_dir}/sqlite3.c has SHA-256 ${sqlite_sha256}, which is none of the pinned ones")
endif()

add_library(sqlite3 STATIC "${sqlite_dir}/sqlite3.c")
target_include_directories(sqlite3 SYSTEM PUBLIC "${sqlite_dir}")
# PUBLIC: sqlite3.h hides the declarations without them.
target_compile_definitions(sqlite3
  PUBLIC SQLITE_ENABLE_SESSION SQLITE_ENABLE_PREUPDATE_HOOK SQLITE_ENABLE_SNAPSHOT
    SQLITE_ENABLE_COLUMN_METADATA SQLITE_ENABLE_NORMALIZE
  PRIVATE SQLITE_THREADSAFE=2 SQLITE_DQS=0 SQLITE_ENABLE_DBPAGE_VTAB SQLITE_ENABLE_DBSTAT_VTAB
    SQLITE_ENABLE_FTS5 SQLITE_ENABLE_RTREE SQLITE_ENABLE_STAT4 SQLITE_ENABLE_MATH_FUNCTIONS
    SQLITE_DEFAULT_MEMSTATUS=0
    SQLITE_LIKE_DOESNT_MATCH_BLOBS SQLITE_OMIT_DEPRECATED SQLITE_OMIT_SHARED_CACHE
    SQLITE_STRICT_SUBTYPE=1 SQLITE_MAX_ATTACHED=10)
target_compile_options(sqlite3 PRIVATE -w)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(sqlite3 PRIVATE -O1)
endif()
target_link_libraries(sqlite3 PUBLIC Threads::Threads ${CMAKE_DL_LIBS} m)
