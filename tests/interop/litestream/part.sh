# What stock Litestream replicated into a folder, restored by `offprint restore`.
litestream_archives() {
  local rc=0
  OFFPRINT="$program" LITESTREAM="$tools/litestream/bin $tools/litestream-old/bin" bash tests/interop/litestream.sh \
    > "$scratch/litestream.log" 2>&1 </dev/null || rc=$?
  cat "$scratch/litestream.log"
  grep -oE '^[0-9]+ passed, [0-9]+ failed' "$scratch/litestream.log" | tail -n 1 | sed 's/ passed,//; s/ failed//' \
    > "$scratch/count" || true
  [[ -s "$scratch/count" ]] || echo "0 0" > "$scratch/count"
  return "$rc"
}
part "Litestream" litestream_archives
