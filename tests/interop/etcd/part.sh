# The coordinator's driver for etcd against stock members on loopback ports.
etcd_register() {
  local rc=0 built
  built="$(dirname "$program")"
  cmake --build "$built" --target etcd_test > "$scratch/etcd.log" 2>&1 ||
    { cat "$scratch/etcd.log" && echo "etcd: etcd_test does not build in $built" && return 1; }
  # In the build's folder, as ctest runs tests: the paths of recorded folders are relative to it.
  (cd "$built" && OFFPRINT_ETCD="$tools/bin/etcd" timeout 900 ./etcd_test) > "$scratch/etcd.log" 2>&1 </dev/null ||
    rc=$?
  if [[ $rc != 0 ]]; then cat "$scratch/etcd.log"; fi
  awk '/^\[       OK \]/ { ok++ } /^\[  FAILED  \] .*\(.* ms\)$/ { bad++ } END { print ok + 0, bad + 0 }' \
    "$scratch/etcd.log" > "$scratch/count"
  return "$rc"
}
part "etcd" etcd_register
