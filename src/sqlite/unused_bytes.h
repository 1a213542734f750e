#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/connection.h"

namespace offprint::sqlite {

// Keeps what is in no row any more out of what a connection commits. SQLite zeroes what is deleted
// (PRAGMA secure_delete), but where it moves rows between pages of a tree it leaves copies of them
// in the free space of the pages. Before a COMMIT that space is zeroed in all pages that the
// transaction has written: file, log, streams and archive get the same images.
// Thread: the connection's, which must outlive it and has a commit gate (capture.h).
class UnusedBytes {
 public:
  // Statements must be allowed by the connection's authorizer.
  static Result<UnusedBytes> open(Connection& connection);

  // In an open write transaction, no statement active, its COMMIT is next. An error is one of the
  // connection: the transaction is to be rolled back. Not done, as pages cannot be told apart
  // there: with auto_vacuum, and from 33,554,432 pages on (128 GiB in pages of 4 KiB).
  Result<> clear();

 private:
  UnusedBytes(Connection& connection, Statement select, Statement update)
      : connection_(&connection), select_(std::move(select)), update_(std::move(update)) {}
  Result<bool> read(std::uint32_t page);
  Result<> write(std::uint32_t page);
  Result<> clear_pages();
  Result<bool> clear_free(std::span<const std::uint32_t> written);

  Connection* connection_;
  Statement select_, update_;
  Bytes image_;
};

}  // namespace offprint::sqlite
