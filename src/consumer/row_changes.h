#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "consumer/spec.h"
#include "sqlite/connection.h"

namespace offprint::consumer {

// The rows of a replica's table that changed since they were looked at last. The own database keeps
// an image of them, `_offprint_row_NAME`; what differs from it has changed. Cost: the image has the
// watched columns of all rows, and each look reads both by key.
// All methods run on the session's connection, inside of a transaction that the caller holds; the
// image changes with it. Thread: one. Lifetime: `connection` must outlive it.
class RowChanges {
 public:
  // kInvalid: the table, a column is not there; the key is not unique.
  static Result<RowChanges> make(sqlite::Connection& connection, const ReactionSpec& spec);

  // What is watched, as text: an image of another text is of no use.
  const std::string& definition() const { return definition_; }
  // Makes the empty image in the own database.
  Result<> make_image();
  Result<> drop_image();

  // Whether anything differs. Reads only.
  Result<bool> any();
  // Gathers what differs: changes() then gives it, deletes first, then updates, then inserts.
  Result<> gather();
  // op ('insert', 'update', 'delete'), then the old values of columns(), then the new ones.
  Result<sqlite::Statement> changes();
  // Brings the image to the gathered state.
  Result<> accept();

  // Names: of the key, then of the other watched columns.
  const std::vector<std::string>& columns() const { return names_; }

 private:
  explicit RowChanges(sqlite::Connection& connection) : connection_(&connection) {}
  Result<> find_types(const ReactionSpec& spec);
  std::string difference() const;
  std::string list(std::string_view pattern) const;
  std::string keys(std::string_view pattern, std::string_view between) const;
  Result<> execute(const std::string& sql);

  sqlite::Connection* connection_;
  std::string source_, image_, definition_;
  std::vector<std::string> names_, source_columns_;  // quoted
  std::vector<std::string> types_, collations_;
  std::size_t key_count_ = 0;
};

}  // namespace offprint::consumer
