# Archives in stock S3 services: versitygw and moto's server.
s3_services() {
  local rc=0 built test
  built="$(dirname "$program")"
  cmake --build "$built" --target s3_tool > /dev/null || { echo "s3: s3_tool does not build in $built" && return 1; }
  S3_TOOL="$built/s3_tool" VERSITYGW="$tools/bin/versitygw" \
    timeout 900 "$tools/s3/bin/python" tests/interop/s3/s3_test.py > "$scratch/s3.log" 2>&1 </dev/null || rc=$?
  for test in server_test tail_test litestream_test; do
    OFFPRINT="$program" VERSITYGW="$tools/bin/versitygw" \
      LITESTREAM="$tools/litestream/bin $tools/litestream-old/bin" timeout 900 "$tools/s3/bin/python" \
      "tests/interop/s3/$test.py" >> "$scratch/s3.log" 2>&1 </dev/null || rc=$?
  done
  if [[ $rc != 0 ]]; then cat "$scratch/s3.log"; fi
  awk '/ \.\.\. ok$/ { ok++ } / \.\.\. (FAIL|ERROR)$/ { bad++ } END { print ok + 0, bad + 0 }' "$scratch/s3.log" \
    > "$scratch/count"
  return "$rc"
}
part "S3 services" s3_services
