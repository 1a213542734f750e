#!/usr/bin/env bash
# Archives between Offprint and stock Litestream, both ways.
# - A database that Litestream replicated into a folder is restored by `offprint restore`: equal to what Litestream itself
#   restores, page by page but for the counters of page 1, and equal to the database that was replicated.
# - A server goes on with what Litestream wrote, in the same folder, and Litestream restores what it added.
# - What `offprint serve --archive` wrote is restored by Litestream, at the newest moment, at a transaction and at a time:
#   equal to what the server exports; and Litestream goes on where the server stopped.
#
#   OFFPRINT    the program
#   LITESTREAM  folders of Litestream's program, one for each version, with spaces between
#   SQLITE3     the sqlite3 shell (default: sqlite3)
# Prints what failed, then "N passed, N failed"; exit 0 only if nothing failed.
set -u
offprint=${OFFPRINT:?set OFFPRINT to the program}
versions=${LITESTREAM:?set LITESTREAM to the folders of Litestream}
sqlite3=${SQLITE3:-sqlite3}
work=$(mktemp -d)
replicator=""
server=""
passed=0
failed=0
cleanup() {
  [ -z "$replicator" ] || kill -TERM "$replicator" 2>/dev/null
  [ -z "$server" ] || kill -TERM "$server" 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT

# check NAME COMMAND...: the command succeeds. refuse NAME COMMAND...: it fails.
check() {
  local name=$1 said; shift
  if said=$("$@" 2>&1); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $name: $* : $said"; fi
}
refuse() {
  local name=$1; shift
  if "$@" >/dev/null 2>&1; then failed=$((failed + 1)); echo "FAILED $name: $* : was accepted"; else passed=$((passed + 1)); fi
}
# The tables of the test: Litestream's own count on meanwhile.
same_dump() { cmp <("$sqlite3" "$1" '.dump t u') <("$sqlite3" "$2" '.dump t u'); }
is_sound() { [ "$("$sqlite3" "$1" 'PRAGMA integrity_check')" = ok ]; }
# Equal but for page 1's change counter (24..27), the counter of its last change (92..95) and the journal mode (18, 19).
same_pages() {
  python3 - "$1" "$2" <<'PYTHON'
import sys
one, two = (bytearray(open(path, "rb").read()) for path in sys.argv[1:])
for content in one, two:
    for at in (18, 19, *range(24, 28), *range(92, 96)):
        content[at] = 0
sys.exit(one != two)
PYTHON
}
newest_txid() { find "$1/ltx/0" -name '*.ltx' | sort | tail -n 1 | sed 's/.*-//; s/\.ltx//'; }

# until_synced REPLICA TXID: Litestream wrote a transaction after that one.
until_synced() {
  local deadline=$((SECONDS + 20))
  until [[ "$(newest_txid "$1" 2>/dev/null)" > "$2" ]]; do
    ((SECONDS < deadline)) || { echo "FAILED litestream did not go on after transaction $2"; failed=$((failed + 1)); return; }
    sleep 0.1
  done
}

# write DATABASE REPLICA SQL: a transaction, and the sync that takes it.
write() {
  local before
  before=$(newest_txid "$2" 2>/dev/null)
  "$sqlite3" -cmd '.timeout 5000' "$1" "$3" >/dev/null || { echo "FAILED to write: $3"; failed=$((failed + 1)); }
  until_synced "$2" "${before:-0}"
}

# replicate LITESTREAM FOLDER PAGE_SIZE: a life of a database, with copies of some moments: FOLDER/at-TXID.db.
replicate() {
  local litestream=$1 dir=$2 size=$3 db=$2/source.db replica=$2/replica
  "$sqlite3" "$db" "PRAGMA page_size=$size; PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, noise BLOB);
    CREATE INDEX i ON t(noise); INSERT INTO t(noise) VALUES (randomblob(20000));" >/dev/null
  "$litestream" replicate "$db" "file://$replica" >"$dir/log" 2>&1 &
  replicator=$!
  until_synced "$replica" 0
  local sql
  for sql in \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<400) INSERT INTO t(noise) SELECT randomblob(300) FROM n" \
    "DELETE FROM t WHERE id % 3 = 0" \
    "UPDATE t SET noise = randomblob(900) WHERE id % 5 = 0; CREATE TABLE u(a, b); INSERT INTO u VALUES (1, 'ü')" \
    "DELETE FROM t WHERE id > 50" \
    "VACUUM" \
    "INSERT INTO t(noise) VALUES (zeroblob(200000))"; do
    write "$db" "$replica" "$sql"
    "$sqlite3" "$db" ".backup '$dir/at-$(newest_txid "$replica").db'"
  done
  kill -INT "$replicator"
  wait "$replicator"
  replicator=""
}

# moments NAME LITESTREAM FOLDER: every moment that was copied, by both programs.
moments() {
  local name=$1 litestream=$2 dir=$3 copy txid ours theirs
  for copy in "$dir"/at-*.db; do
    txid=$(basename "$copy" .db)
    txid=${txid#at-}
    ours=$dir/ours-$txid.db theirs=$dir/theirs-$txid.db
    check "$name: we restore $txid" "$offprint" restore "file://$dir/replica" "$ours" --at "$((16#$txid))"
    check "$name: litestream restores $txid" "$litestream" restore -txid "$txid" -o "$theirs" "file://$dir/replica"
    check "$name: equal pages at $txid" same_pages "$ours" "$theirs"
    check "$name: equal content at $txid" same_dump "$ours" "$copy"
    check "$name: sound at $txid" is_sound "$ours"
  done
}

for folder in $versions; do
  litestream=$folder/litestream
  version=$("$litestream" version)
  for size in 4096 512; do
    dir=$work/$version-$size
    mkdir -p "$dir"
    name="$version, page size $size"
    replicate "$litestream" "$dir" "$size"
    moments "$name" "$litestream" "$dir"
    check "$name: we restore the newest" "$offprint" restore "file://$dir/replica" "$dir/newest.db" --json
    check "$name: litestream restores the newest" "$litestream" restore -o "$dir/theirs.db" "file://$dir/replica"
    check "$name: equal pages of the newest" same_pages "$dir/newest.db" "$dir/theirs.db"
    check "$name: equal to the source" same_dump "$dir/newest.db" "$dir/source.db"
    check "$name: a time before now is the newest" "$offprint" restore "file://$dir/replica" "$dir/now.db" \
      --at "$(date -u +%Y-%m-%dT%H:%M:%SZ -d '+1 minute')"
    check "$name: the same by time" cmp "$dir/now.db" "$dir/newest.db"
    refuse "$name: a file that is there" "$offprint" restore "file://$dir/replica" "$dir/now.db"
    check "$name: unless forced" "$offprint" restore "file://$dir/replica" "$dir/now.db" --force
    refuse "$name: a transaction to come" "$offprint" restore "file://$dir/replica" "$dir/x.db" --at 999999
    refuse "$name: a time before all" "$offprint" restore "file://$dir/replica" "$dir/x.db" --at 2001-01-01T00:00:00Z
    find "$dir/replica/ltx" -name "*-$(newest_txid "$dir/replica").ltx" | while read -r file; do printf x >>"$file"; done
    refuse "$name: a damaged file" "$offprint" restore "file://$dir/replica" "$dir/x.db"
  done
done

# --- what we archived ---------------------------------------------------------------------------

# post SQL: one request of the server, its answer.
post() { curl --silent --show-error --fail --data "\"$1\"" "http://127.0.0.1:$port/db/shop/orders/query"; }

# until_archived: nothing waits any more.
until_archived() {
  local deadline=$((SECONDS + 20))
  until curl --silent --fail "http://127.0.0.1:$port/metrics" | grep -q '^offprint_archive_databases_behind 0$'; do
    ((SECONDS < deadline)) || { echo "FAILED the archive is behind"; failed=$((failed + 1)); return; }
    sleep 0.05
  done
}

# start_server FOLDER: a server on FOLDER/data with the archive FOLDER/archive.
start_server() {
  local dir=$1 deadline=$((SECONDS + 20))
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  "$offprint" serve --data "$dir/data" --listen "127.0.0.1:$port" --archive "file://$dir/archive" \
    --archive-sync-ms 0 >>"$dir/serve.log" 2>&1 &
  server=$!
  until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
    ((SECONDS < deadline)) || { cat "$dir/serve.log"; failed=$((failed + 1)); return; }
    sleep 0.05
  done
  export OFFPRINT_SERVER="http://127.0.0.1:$port"
}
stop_server() {
  kill -TERM "$server"
  wait "$server"
  server=""
}

# archive FOLDER PAGE_SIZE: a life of a database on the server, with exports of some moments: FOLDER/at-TXID.db, and their
# times.
archive() {
  local dir=$1 size=$2 sql txid
  start_server "$dir"
  "$offprint" db create shop/orders --page-size "$size" >/dev/null
  for sql in \
    "CREATE TABLE t(id INTEGER PRIMARY KEY, noise BLOB)" \
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<400) INSERT INTO t(noise) SELECT randomblob(300) FROM n" \
    "CREATE TABLE u(a, b)" \
    "DELETE FROM t WHERE id > 50" \
    "VACUUM" \
    "INSERT INTO t(noise) VALUES (zeroblob(200000))"; do
    post "$sql" >/dev/null
    until_archived
    txid=$(find "$dir/archive/shop/orders/ltx/0" -name '*.ltx' | sort | tail -n 1 | sed 's/.*-//; s/\.ltx//')
    "$offprint" db export shop/orders "$dir/at-$txid.db" >/dev/null
    sleep 0.02
    date -u +%Y-%m-%dT%H:%M:%S.%NZ >"$dir/time-$txid"
    sleep 0.02
  done
  stop_server
}

# --- what Litestream wrote and a server goes on with ----------------------------------------------

for folder in $versions; do
  litestream=$folder/litestream
  name="taken over from $("$litestream" version)"
  dir=$work/theirs-$(basename "$(dirname "$folder")")
  mkdir -p "$dir/archive/shop"
  replicate "$litestream" "$dir" 4096
  mv "$dir/replica" "$dir/archive/shop/orders"
  before=$(newest_txid "$dir/archive/shop/orders")
  start_server "$dir"
  check "$name: a database is made of it" "$offprint" db create shop/orders --from-archive
  refuse "$name: and not twice" "$offprint" db create shop/orders --from-archive
  check "$name: it can be written" post "INSERT INTO u VALUES (7, 8)"
  check "$name: and again" post "CREATE TABLE v(a)"
  until_archived
  stop_server
  start_server "$dir"  # and goes on after a restart
  check "$name: it is there" post "INSERT INTO v VALUES (1)"
  until_archived
  check "$name: exported" "$offprint" db export shop/orders "$dir/export.db"
  stop_server
  from=file://$dir/archive/shop/orders
  check "$name: the next transaction follows" test -e \
    "$dir/archive/shop/orders/ltx/0/$(printf '%016x-%016x' $((16#$before + 1)) $((16#$before + 1))).ltx"
  check "$name: litestream restores it" "$litestream" restore -o "$dir/theirs.db" "$from"
  check "$name: we restore it" "$offprint" restore "$from" "$dir/ours.db"
  check "$name: equal pages" same_pages "$dir/theirs.db" "$dir/ours.db"
  check "$name: equal to the server's" same_pages "$dir/ours.db" "$dir/export.db"
  check "$name: sound" is_sound "$dir/theirs.db"
  check "$name: verified" "$offprint" verify "$from"
  for copy in "$dir"/at-*.db; do
    txid=$(basename "$copy" .db)
    rm -f "$dir/earlier.db"
    check "$name: an earlier moment" "$offprint" restore "$from" "$dir/earlier.db" --at "$((16#${txid#at-}))"
    check "$name: as it was" same_dump "$dir/earlier.db" "$copy"
  done
done

for size in 4096 512 65536; do
  dir=$work/ours-$size
  mkdir -p "$dir"
  archive "$dir" "$size"
  from=file://$dir/archive/shop/orders
  for folder in $versions; do
    litestream=$folder/litestream
    name="ours by $("$litestream" version), page size $size"
    newest=""
    for copy in "$dir"/at-*.db; do
      txid=$(basename "$copy" .db)
      txid=${txid#at-}
      check "$name: litestream restores $txid" "$litestream" restore -txid "$txid" -o "$dir/theirs.db" "$from"
      check "$name: equal pages at $txid" same_pages "$dir/theirs.db" "$copy"
      rm -f "$dir/theirs.db"
      if [ -n "$newest" ]; then  # a time after that moment and before this one
        check "$name: litestream restores a time" "$litestream" restore -timestamp "$(cat "$dir/time-$newest")" \
          -o "$dir/theirs.db" "$from"
        check "$name: equal pages at a time" same_pages "$dir/theirs.db" "$dir/at-$newest.db"
        rm -f "$dir/theirs.db"
      fi
      newest=$txid
    done
    check "$name: litestream restores the newest" "$litestream" restore -o "$dir/theirs.db" "$from"
    check "$name: equal pages of the newest" same_pages "$dir/theirs.db" "$dir/at-$newest.db"
    rm -f "$dir/theirs.db"

    # It takes the archive over: restores, goes on writing, and both programs restore what it wrote.
    taken=$dir/taken-$(basename "$folder")-$(basename "$(dirname "$folder")")
    cp -a "$dir/archive/shop/orders" "$taken"
    "$litestream" restore -o "$taken.db" "file://$taken" >/dev/null 2>&1
    "$sqlite3" "$taken.db" 'PRAGMA journal_mode=WAL; INSERT INTO u VALUES (7, 8)' >/dev/null
    "$litestream" replicate "$taken.db" "file://$taken" >"$taken.log" 2>&1 &
    replicator=$!
    until_synced "$taken" "$newest"
    write "$taken.db" "$taken" "INSERT INTO u VALUES (9, 10)"
    kill -INT "$replicator"
    wait "$replicator"
    replicator=""
    check "$name: litestream restores what it took over" "$litestream" restore -o "$taken-theirs.db" "file://$taken"
    check "$name: equal to its database" same_dump "$taken-theirs.db" "$taken.db"
    rm -rf "$taken/offprint"  # the promise of the server that wrote it before
    check "$name: we restore what it took over" "$offprint" restore "file://$taken" "$taken-ours.db"
    check "$name: equal to its database, too" same_dump "$taken-ours.db" "$taken.db"
  done
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
