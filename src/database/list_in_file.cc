#include "database/list_in_file.h"

#include <algorithm>
#include <filesystem>

#include "database/store_folder.h"
#include "sqlite/connection.h"

namespace offprint::database {
namespace {

constexpr std::uint64_t kList = 0;  // its number, and that of what belongs to no database

Result<> read_rows(sqlite::Connection& list, const char* sql, const auto& each) {
  OFFPRINT_TRY_ASSIGN(sqlite::Statement rows, list.prepare(sql));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(bool more, rows.step());
    if (!more) return {};
    each(rows);
  }
}

}  // namespace

bool ListInFile::Entry::lost(const Bookmark& transaction) const {
  return std::ranges::any_of(ends, [&](const EpochEnd& end) {
    return transaction.epoch < end.epoch && transaction.txid > end.txid;
  });
}

Result<ListInFile> ListInFile::read(const std::string& directory) {
  const std::string path = database_file(directory, kList);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    return fail(Code::kNotFound, directory + " has no list of databases");
  sqlite::Connection::Options options;
  options.read_only = true;
  options.immutable = true;
  OFFPRINT_TRY_ASSIGN(auto file,
                      sqlite::Connection::open(std::filesystem::absolute(path), options));
  ListInFile list;
  OFFPRINT_TRY(read_rows(file, "SELECT id, name, lineage FROM databases", [&](const auto& row) {
    Entry& entry = list.databases[static_cast<std::uint64_t>(row.column_int(0))];
    entry.name = row.column_text(1);
    const ByteView lineage = row.column_blob(2);
    std::copy_n(lineage.begin(), std::min(lineage.size(), entry.lineage.bytes.size()),
                entry.lineage.bytes.begin());
  }));
  OFFPRINT_TRY(
      read_rows(file, "SELECT database_id, epoch, txid FROM epoch_ends", [&](const auto& row) {
        const auto id = static_cast<std::uint64_t>(row.column_int(0));
        if (id == kList) list.cuts.insert(row.column_int(1));
        auto found = list.databases.find(id);
        if (found == list.databases.end()) return;
        found->second.ends.push_back({Epoch{static_cast<std::uint32_t>(row.column_int(1))},
                                      TxId{static_cast<std::uint64_t>(row.column_int(2))}});
      }));
  return list;
}

}  // namespace offprint::database
