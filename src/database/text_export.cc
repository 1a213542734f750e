#include "database/text_export.h"

#include <cerrno>

namespace offprint::database {
namespace {

constexpr std::size_t kPieceBytes = 256 << 10;

class SqlExport final : public TextExport {
 public:
  explicit SqlExport(std::shared_ptr<SqlSnapshot> snapshot) : snapshot_(std::move(snapshot)) {}
  // Not while the snapshot's time limit resets what is still open.
  ~SqlExport() override {
    (void)snapshot_->with([this](sqlite::Connection&) -> Result<> {
      dump_.reset();
      return {};
    });
  }

  Result<> start(const SqlDumpOptions& options) {
    return snapshot_->with([&](sqlite::Connection& db) -> Result<> {
      OFFPRINT_TRY_ASSIGN(dump_, SqlDump::start(db, options));
      return {};
    });
  }
  Bookmark bookmark() const override { return snapshot_->bookmark(); }
  Result<bool> next(std::string& to, std::size_t bytes) override {
    bool more = false;
    OFFPRINT_TRY(snapshot_->with([&](sqlite::Connection&) -> Result<> {
      OFFPRINT_TRY_ASSIGN(more, dump_->next(to, bytes));
      return {};
    }));
    return more;
  }

 private:
  std::shared_ptr<SqlSnapshot> snapshot_;
  std::unique_ptr<SqlDump> dump_;  // goes before snapshot_ does
};

}  // namespace

Result<std::unique_ptr<TextExport>> export_sql(Store& store, const DatabaseName& name,
                                               const SqlDumpOptions& options) {
  OFFPRINT_TRY_ASSIGN(auto snapshot, store.sql_snapshot(name));
  auto text = std::make_unique<SqlExport>(std::move(snapshot));
  OFFPRINT_TRY(text->start(options));
  return text;
}

Result<std::uint64_t> write_all(TextExport& text, std::FILE* to) {
  std::uint64_t size = 0;
  std::string piece;
  for (bool more = true; more;) {
    piece.clear();
    OFFPRINT_TRY_ASSIGN(more, text.next(piece, kPieceBytes));
    if (std::fwrite(piece.data(), 1, piece.size(), to) != piece.size())
      return fail(io_error("write the export", errno));
    size += piece.size();
  }
  if (std::fflush(to) != 0) return fail(io_error("write the export", errno));
  return size;
}

}  // namespace offprint::database
