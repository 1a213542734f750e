# The stock ltx program verifies what we write, and we read what it wrote.
ltx_program() {
  local rc=0
  LTX="$tools/bin/ltx" GO="$tools/bin/go" OFFPRINT_BUILD="$(dirname "$program")" bash tests/interop/ltx.sh \
    > "$scratch/ltx.log" 2>&1 </dev/null || rc=$?
  cat "$scratch/ltx.log"
  grep -oE '^[0-9]+ passed, [0-9]+ failed' "$scratch/ltx.log" | tail -n 1 | sed 's/ passed,//; s/ failed//' \
    > "$scratch/count" || true
  [[ -s "$scratch/count" ]] || echo "0 0" > "$scratch/count"
  return "$rc"
}
part "ltx program" ltx_program
