# A real cluster in network namespaces, broken under load; first whether the checkers see errors at all.
fault_checkers() {
  go_tests tests/interop/faults "$tools/faults/faults.test" OFFPRINT_FAULTS_ISOLATED ""
}

fault_cases() {
  local rc=0 file
  OFFPRINT_FAULTS_FOLDER="$scratch/faults" tests/interop/faults/run "$program" "$tools/bin/etcd" \
    > "$scratch/go.log" 2>&1 </dev/null || rc=$?
  if [[ $rc != 0 ]]; then
    cat "$scratch/go.log"
    for file in "$scratch"/faults/*/*.log; do echo "--- the end of $file" && tail -n 60 "$file"; done
  else
    grep '^faults:' "$scratch/go.log"
  fi
  awk '/^ +--- PASS/ { ok++ } /--- FAIL/ { bad++ } END { print ok + 0, bad + 0 }' "$scratch/go.log" > "$scratch/count"
  return "$rc"
}

part "checkers of histories" fault_checkers
if unshare --net --mount --pid --fork --kill-child --mount-proc ip netns list >/dev/null 2>&1; then
  part "cluster under faults" fault_cases
else
  echo "faults: SKIPPED: NO NETWORK NAMESPACES HERE (THEY TAKE ROOT AND IPROUTE2); NO CLUSTER WAS BROKEN"
fi
