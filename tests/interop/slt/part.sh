# Files of the sqllogictest project (a folder of them: OFFPRINT_SLT), and one of ours, through one node and through a
# read replica. Through a cluster: etcd/cluster_clients_test.cc.
sqllogictest() {
  local replica port ok=0 bad=0 files=(tests/interop/slt/own.test)
  if [[ -n "${OFFPRINT_SLT:-}" ]]; then files+=("$OFFPRINT_SLT"/*.test); fi
  port="$(free_port)"
  "$program" serve --follow "$url" --data "$scratch/slt-replica" --listen "127.0.0.1:$port" > "$scratch/slt.log" 2>&1 &
  replica=$!
  for read in "$url" "http://127.0.0.1:$port"; do
    if python3 tests/interop/slt/run.py --write "$url" --read "$read" "${files[@]}"; then ok=$((ok + 1)); else bad=$((bad + 1)); fi
  done
  kill -TERM "$replica"
  wait "$replica" || true
  echo "$ok $bad" > "$scratch/count"
}
part "sqllogictest" sqllogictest
