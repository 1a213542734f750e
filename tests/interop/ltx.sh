#!/usr/bin/env bash
# LTX files between Offprint and the stock library (github.com/superfly/ltx), both ways, for every page size:
# the stock program verifies, applies and compacts what we write, in the encodings of versions 0.5.2 (LZ4 blocks) and
# 0.5.1 (LZ4 frames); we do the same with what it writes in both.
#
#   LTX       the stock `ltx` program, version 0.5.2
#   LTX_TOOL  our ltx_tool (default: built in OFFPRINT_BUILD, which is build/dev by default)
#   GO        Go's command (default: go); builds ltx_stock/ against the stock library
#   SQLITE3   the sqlite3 shell (default: sqlite3)
# Prints what failed, then "N passed, N failed"; exit 0 only if nothing failed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
ltx=${LTX:?set LTX to the stock ltx program}
build=${OFFPRINT_BUILD:-$here/../../build/dev}
if [ -z "${LTX_TOOL:-}" ]; then
  cmake --build "$build" --target ltx_tool >/dev/null || { echo "ltx.sh: ltx_tool does not build in $build" >&2; exit 2; }
fi
tool=${LTX_TOOL:-$build/ltx_tool}
go=${GO:-go}
sqlite3=${SQLITE3:-sqlite3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

for program in "$ltx" "$tool" "$go" "$sqlite3"; do
  command -v "$program" >/dev/null || { echo "ltx.sh: $program is missing" >&2; exit 2; }
done

# check NAME COMMAND...: the command succeeds. refuse NAME COMMAND...: it fails.
check() {
  local name=$1 said; shift
  if said=$("$@" 2>&1); then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $name: $* : $said"; fi
}
refuse() {
  local name=$1; shift
  if "$@" >/dev/null 2>&1; then failed=$((failed + 1)); echo "FAILED $name: $* : was accepted"; else passed=$((passed + 1)); fi
}
same_text() { [ -n "$1" ] && [ "$1" = "$2" ]; }

# The helper, against one version of the stock library.
build_stock() {
  local version=$1 folder=$work/stock-$1
  mkdir -p "$folder"
  cp "$here/ltx_stock/main.go" "$folder/"
  printf 'module ltx_stock\n\ngo 1.24\n\nrequire github.com/superfly/ltx v%s\n' "$version" >"$folder/go.mod"
  (cd "$folder" && GOFLAGS="-mod=mod -buildvcs=false" "$go" build -o "$work/ltx_stock-$version" .) >"$folder/log" 2>&1 ||
    { cat "$folder/log" >&2; echo "ltx.sh: cannot build against the stock library $version" >&2; exit 2; }
}

# Three states of one database: filled; changed and grown; shrunk by VACUUM.
make_states() {
  local size=$1 dir=$2
  "$sqlite3" "$dir/db" "PRAGMA page_size=$size; PRAGMA journal_mode=DELETE;
    CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT, noise BLOB); CREATE INDEX i ON t(text);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)
    INSERT INTO t SELECT i, 'row number ' || i, randomblob(i) FROM n;" >/dev/null
  cp "$dir/db" "$dir/1.db"
  "$sqlite3" "$dir/db" "UPDATE t SET text = upper(text) WHERE id % 50 = 0;
    INSERT INTO t(text, noise) VALUES ('long', randomblob(200000)); DELETE FROM t WHERE id = 7;" >/dev/null
  cp "$dir/db" "$dir/2.db"
  "$sqlite3" "$dir/db" "DELETE FROM t WHERE id > 20; VACUUM;" >/dev/null
  cp "$dir/db" "$dir/3.db"
}

# encode_all WRITER SUFFIX: the three transactions by one writer, e.g. 1.ours.ltx.
encode_all() {
  local dir=$1 suffix=$2; shift 2
  check "$suffix writes a snapshot" "$@" encode "$dir/1.db" "$dir/1.$suffix.ltx" 1
  check "$suffix writes a change" "$@" encode "$dir/2.db" "$dir/2.$suffix.ltx" 2 "$dir/1.db"
  check "$suffix writes a shrinking" "$@" encode "$dir/3.db" "$dir/3.$suffix.ltx" 3 "$dir/2.db"
}

# Both sides accept and apply a run of files, and reach the state. leads SIDE... STATE FILE...
leads() {
  local name=$1 state=$2; shift 2
  rm -f "$state".stock "$state".ours
  check "stock verifies $name" "$ltx" verify "$@"
  check "we verify $name" "$tool" verify "$@"
  # The stock program's apply never truncates, so the run that shrinks is first compacted by the stock library.
  if [ "$state" = "$dir/3.db" ]; then
    check "stock compacts $name" "$stock" compact "$state.compacted" "$@"
    check "stock applies $name" "$ltx" apply -db "$state.stock" "$state.compacted"
  else
    check "stock applies $name" "$ltx" apply -db "$state.stock" "$@"
  fi
  check "stock reaches the state by $name" cmp "$state" "$state.stock"
  check "we apply $name" "$tool" apply "$state.ours" "$@"
  check "we reach the state by $name" cmp "$state" "$state.ours"
}

build_stock 0.5.2
build_stock 0.5.1
# Our files with pages as LZ4 frames.
frames=$work/frames
printf '#!/bin/sh\nexec "%s" "$@" --frames\n' "$(realpath "$(command -v "$tool")")" >"$frames"
chmod +x "$frames"
stock=$work/ltx_stock-0.5.2
old=$work/ltx_stock-0.5.1

for size in 512 1024 2048 4096 8192 16384 32768 65536; do
  dir=$work/$size
  mkdir "$dir"
  make_states "$size" "$dir"
  for state in 1 2 3; do
    check "checksum of state $state, page size $size" same_text \
      "$("$ltx" checksum "$dir/$state.db")" "$("$tool" checksum "$dir/$state.db")"
  done

  encode_all "$dir" ours "$tool"
  encode_all "$dir" frames "$frames"
  encode_all "$dir" stock "$stock"
  encode_all "$dir" old "$old"
  for writer in ours frames stock old; do
    f=$dir/x.$writer.ltx
    leads "$writer 1, page size $size" "$dir/1.db" "${f/x./1.}"
    leads "$writer 1-2, page size $size" "$dir/2.db" "${f/x./1.}" "${f/x./2.}"
    leads "$writer 1-3, page size $size" "$dir/3.db" "${f/x./1.}" "${f/x./2.}" "${f/x./3.}"
  done

  # Compaction, each side of files of both.
  mixed=("$dir/1.old.ltx" "$dir/2.ours.ltx" "$dir/3.stock.ltx")
  check "we compact all" "$tool" compact "$dir/all.ours.ltx" "${mixed[@]}"
  check "stock compacts all" "$stock" compact "$dir/all.stock.ltx" "${mixed[@]}"
  leads "our compaction, page size $size" "$dir/3.db" "$dir/all.ours.ltx"
  leads "stock's compaction, page size $size" "$dir/3.db" "$dir/all.stock.ltx"
  check "we compact the changes" "$tool" compact "$dir/tail.ours.ltx" "$dir/2.stock.ltx" "$dir/3.ours.ltx"
  leads "a snapshot and our compacted changes, page size $size" "$dir/3.db" "$dir/1.stock.ltx" "$dir/tail.ours.ltx"

  # Our frames are what the library before 0.5.2 reads; blocks it refuses.
  check "stock 0.5.1 compacts our frames" "$old" compact "$dir/all.frames.old.ltx" "$dir"/[123].frames.ltx
  leads "0.5.1's compaction of our frames, page size $size" "$dir/3.db" "$dir/all.frames.old.ltx"
  refuse "stock 0.5.1 compacts our blocks" "$old" compact "$dir/x" "$dir"/[123].ours.ltx
  check "we compact into frames" "$frames" compact "$dir/all.frames.ltx" "${mixed[@]}"
  leads "our compaction into frames, page size $size" "$dir/3.db" "$dir/all.frames.ltx"

  # The same without checksums.
  check "we write without checksums" "$tool" encode "$dir/1.db" "$dir/1.plain.ltx" 1 --no-checksum
  check "we write a change without checksums" "$tool" encode "$dir/2.db" "$dir/2.plain.ltx" 2 "$dir/1.db" --no-checksum
  check "stock writes without checksums" env FLAGS=2 "$stock" encode "$dir/3.db" "$dir/3.plain.ltx" 3 "$dir/2.db"
  check "stock verifies files without checksums" "$ltx" verify "$dir"/[123].plain.ltx
  check "stock compacts ours without checksums" env FLAGS=2 "$stock" compact "$dir/all.plain.stock.ltx" "$dir"/[123].plain.ltx
  check "we compact without checksums" "$tool" compact "$dir/all.plain.ours.ltx" "$dir"/[123].plain.ltx --no-checksum
  for by in stock ours; do
    rm -f "$dir/plain.db"
    check "we apply files without checksums, compacted by $by" "$tool" apply "$dir/plain.db" "$dir/all.plain.$by.ltx"
    check "we reach the state by them" cmp "$dir/plain.db" "$dir/3.db"
    check "stock verifies files without checksums, compacted by $by" "$ltx" verify "$dir/all.plain.$by.ltx"
  done

  # A deletion; and what neither side may accept.
  check "we write a deletion" "$tool" delete "$dir/3.db" "$dir/4.ltx" 4
  check "stock verifies a deletion" "$ltx" verify "$dir/4.ltx"
  refuse "stock applies a change to another state" "$ltx" apply -db "$dir/3.db.stock" "$dir/2.ours.ltx"
  refuse "we apply a change to another state" "$tool" apply "$dir/3.db.ours" "$dir/2.stock.ltx"
  printf '\1' | dd of="$dir/4.ltx" bs=1 seek=90 conv=notrunc 2>/dev/null
  refuse "stock verifies a damaged file" "$ltx" verify "$dir/4.ltx"
  refuse "we verify a damaged file" "$tool" verify "$dir/4.ltx"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
