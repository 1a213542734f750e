#pragma once

#include "sqlite/capture.h"
#include "sqlite/capture_wal.h"
#include "sqlite/connection.h"

namespace offprint::sqlite {

// The state that a read transaction sees. A transaction may be kept open for the next reads as long
// as it sees the newest state: that is told by a look at shared memory, where ending it and
// beginning another one costs four file locks. Thread: that of the connection, which must outlive
// this.
class ReadSnapshot {
 public:
  // Of the read transaction now open on `connection`, as snapshot_point().
  static Result<ReadSnapshot> of(Connection& connection);

  const WalPoint& point() const { return point_; }
  // What the wal-index says of it; all zero when no transaction was ever written to this -wal.
  const WalIndexHeader& header() const { return header_; }
  // Whether a read transaction that began now would see the same state, whoever wrote since.
  bool is_newest() const;

 private:
  WalPoint point_;
  WalIndexHeader header_;
  const volatile void* wal_index_ = nullptr;  // mapped as long as the connection is open
};

// The first part of the wal-index, mapped as long as the connection is open; it must have read
// something. Null: there is none.
const volatile void* map_wal_index(Connection& connection);

}  // namespace offprint::sqlite
