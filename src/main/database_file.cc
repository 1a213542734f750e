#include "main/database_file.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace offprint {
namespace {

constexpr std::string_view kMagic("SQLite format 3\0", 16);

std::uint64_t size_of(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

Result<FileHandle> open_file(const std::string& path, const char* mode) {
  FileHandle file(std::fopen(path.c_str(), mode));
  if (!file) {
    if (errno == ENOENT) return fail(Code::kInvalid, path + ": no such file");
    return fail(io_error("open " + path, errno));
  }
  return file;
}

// A new file with a name that nobody else has.
Result<FileHandle> create_unique(std::string& path) {
  path += "-XXXXXX";
  int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) return fail(io_error("create " + path, errno));
  return FileHandle(::fdopen(descriptor, "w+b"));
}

// Before SQLite opens it: closing any descriptor of a file drops the locks that this process has on
// it.
Result<> check_magic(const std::string& path) {
  OFFPRINT_TRY_ASSIGN(auto file, open_file(path, "rb"));
  std::array<char, 16> head{};
  std::size_t got = std::fread(head.data(), 1, head.size(), file.get());
  if (std::string_view(head.data(), got) == kMagic) return {};
  return fail(
      Code::kInvalid,
      path + " is not an SQLite file. A script of SQL must have a name that ends with .sql.");
}

Result<> copy_database(sqlite::Connection& from, const std::string& path) {
  sqlite::Connection::Options options;
  options.create = true;
  OFFPRINT_TRY_ASSIGN(auto to, sqlite::Connection::open(path, options));
  OFFPRINT_TRY(to.execute("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF"));
  sqlite3_backup* backup = sqlite3_backup_init(to.handle(), "main", from.handle(), "main");
  if (backup == nullptr)
    return fail(sqlite::sqlite_error(sqlite3_errcode(to.handle()), to.handle()));
  sqlite3_backup_step(backup, -1);
  if (int code = sqlite3_backup_finish(backup); code != SQLITE_OK) {
    return fail(sqlite::sqlite_error(code, to.handle()).with_context("copy the file"));
  }
  return {};
}

Result<> fill_from_database(const std::string& path, Upload& upload) {
  OFFPRINT_TRY(check_magic(path));
  sqlite::Connection::Options options;
  options.busy_timeout_ms = 5000;
  OFFPRINT_TRY_ASSIGN(auto reader, sqlite::Connection::open(path, options));
  // What others have written stays as it is.
  sqlite3_db_config(reader.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  OFFPRINT_TRY(reader.execute("BEGIN"));
  if (auto rows = reader.query_int("SELECT count(*) FROM sqlite_schema"); !rows) {
    return fail(rows.error().with_context(path));
  }
  // With an empty -wal all is in the file itself, and it stays like that while the read transaction
  // lasts.
  if (size_of(path + "-wal") == 0) {
    upload.reader = std::move(reader);
    OFFPRINT_TRY_ASSIGN(upload.content, open_file(path, "rb"));
    return {};
  }
  OFFPRINT_TRY_ASSIGN(upload.temporary, TemporaryFile::create());
  OFFPRINT_TRY(copy_database(reader, upload.temporary->path));
  OFFPRINT_TRY_ASSIGN(upload.content, open_file(upload.temporary->path, "rb"));
  return {};
}

}  // namespace

FileKind kind_of(const std::string& path) {
  constexpr std::pair<std::string_view, FileKind> endings[] = {{".sql", FileKind::kScript},
                                                               {".csv", FileKind::kCsv},
                                                               {".tsv", FileKind::kTsv},
                                                               {".jsonl", FileKind::kJsonLines},
                                                               {".ndjson", FileKind::kJsonLines}};
  for (const auto& [ending, kind] : endings) {
    if (path.ends_with(ending)) return kind;
  }
  return FileKind::kDatabase;
}

Result<std::unique_ptr<TemporaryFile>> TemporaryFile::create() {
  const char* directory = std::getenv("TMPDIR");
  std::string path =
      std::string(directory != nullptr && *directory != '\0' ? directory : "/tmp") + "/offprint";
  OFFPRINT_TRY(create_unique(path));
  auto file = std::make_unique<TemporaryFile>();
  file->path = std::move(path);
  return file;
}

TemporaryFile::~TemporaryFile() {
  for (const char* companion : {"", "-journal", "-wal", "-shm"})
    ::unlink((path + companion).c_str());
}

Result<std::unique_ptr<Upload>> open_for_upload(const std::string& path, FileKind kind) {
  auto upload = std::make_unique<Upload>();
  if (kind != FileKind::kDatabase) {
    OFFPRINT_TRY_ASSIGN(upload->content, open_file(path, "rb"));
  } else {
    OFFPRINT_TRY(fill_from_database(path, *upload));
  }
  struct stat status{};
  if (::fstat(::fileno(upload->content.get()), &status) != 0)
    return fail(io_error("look at " + path, errno));
  upload->size = static_cast<std::uint64_t>(status.st_size);
  return upload;
}

Result<std::unique_ptr<ExportTarget>> ExportTarget::create(const std::string& path, bool force) {
  std::error_code ignored;
  if (!force && std::filesystem::exists(path, ignored)) {
    return fail(Code::kInvalid, path + " exists already; --force replaces it");
  }
  for (const char* companion : {"-wal", "-journal"}) {
    if (size_of(path + companion) == 0) continue;
    return fail(
        Code::kInvalid,
        fmt::format("{0}{1} belongs to another database of that name: a program is at work on "
                    "it, or was cut off. Choose another FILE, or remove {0}*.",
                    path, companion));
  }
  std::unique_ptr<ExportTarget> target(new ExportTarget(path, force));
  target->part_path_ = path;
  Result<FileHandle> part = create_unique(target->part_path_);
  if (!part) {
    target->part_path_.clear();
    return fail(part.error());
  }
  target->part_ = *std::move(part);
  return target;
}

ExportTarget::~ExportTarget() {
  if (!part_path_.empty()) ::unlink(part_path_.c_str());
}

Result<> ExportTarget::write(ByteView piece) {
  if (std::fwrite(piece.data(), 1, piece.size(), part_.get()) == piece.size()) return {};
  return fail(io_error("write " + part_path_, errno));
}

Result<> ExportTarget::finish() {
  mode_t mask = ::umask(0);
  ::umask(mask);
  int descriptor = ::fileno(part_.get());
  bool written = std::fflush(part_.get()) == 0 && ::fchmod(descriptor, 0666 & ~mask) == 0 &&
                 ::fsync(descriptor) == 0;
  if (!written) return fail(io_error("write " + part_path_, errno));
  // link() leaves a file alone that appeared meanwhile.
  int done = force_ ? ::rename(part_path_.c_str(), path_.c_str())
                    : ::link(part_path_.c_str(), path_.c_str());
  if (done != 0) return fail(io_error("name " + path_, errno));
  if (force_) part_path_.clear();
  return {};
}

}  // namespace offprint
