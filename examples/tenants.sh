#!/usr/bin/env bash
# A database for each customer: nobody's query can reach another one's rows, and an idle one costs nothing.
#
#     offprint serve &
#     examples/tenants.sh            # OFFPRINT_SERVER names another server, OFFPRINT the program
set -euo pipefail
offprint="${OFFPRINT:-offprint}"

for customer in ada grace edsger; do
  "$offprint" db create "tenant/$customer"
  "$offprint" sql "tenant/$customer" "
    CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    INSERT INTO notes (text) VALUES ('hello from $customer');"
done

# One consistent file for each, as a backup.
folder="$(mktemp -d)"
for name in $("$offprint" db list --prefix tenant/ | cut -f 1); do
  "$offprint" db export "$name" "$folder/${name#tenant/}.db" > /dev/null
done
ls "$folder"
rm -r "$folder"

# A customer who leaves.
"$offprint" db drop tenant/edsger
