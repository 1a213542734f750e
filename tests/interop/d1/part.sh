# shellcheck shell=bash
# Sourced by tests/interop/run. The stock D1 clients have a script of their own, as they are many.
d1_clients() {
  local rc=0
  tests/interop/d1/run "$url" > "$scratch/d1.log" 2>&1 </dev/null || rc=$?
  cat "$scratch/d1.log"
  tail -n 1 "$scratch/d1.log" | sed 's/ passed,//; s/ failed//' > "$scratch/count"
  return "$rc"
}
part "D1 clients" d1_clients
