// Our side of the interop test with the stock `ltx` program (ltx.sh): encodes, applies, compacts
// and checks LTX files with the product's code. Database files are read and written whole; no
// SQLite takes part.
#include <fmt/format.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "ltx/checksum.h"
#include "ltx/codec.h"

namespace offprint::ltx {
namespace {

constexpr std::uint64_t kSizeMax = std::uint64_t{4} << 30;

constexpr std::string_view kUsage =
    "usage: ltx_tool checksum DB\n"
    "       ltx_tool encode NEW OUT TXID [OLD]   the change from OLD to NEW; without OLD a "
    "snapshot\n"
    "       ltx_tool delete OLD OUT TXID         the deletion of OLD\n"
    "       ltx_tool compact OUT FILE...\n"
    "       ltx_tool verify FILE...\n"
    "       ltx_tool apply DB FILE...            makes DB if it is absent\n"
    "       at the end of encode and compact:\n"
    "       --no-checksum   tracks no checksums\n"
    "       --frames        pages as LZ4 frames instead of blocks\n";

struct Database {
  Bytes content;
  std::uint32_t page_size = 0;

  std::uint32_t page_count() const {
    return page_size == 0 ? 0 : static_cast<std::uint32_t>(content.size() / page_size);
  }
  ByteView page(PageNo number) const {
    return ByteView(content).subspan((std::size_t{number} - 1) * page_size, page_size);
  }
  Checksum checksum() const {
    Checksum sum = kEmptyDatabase;
    for (PageNo number = 1; number <= page_count(); ++number) {
      if (number != lock_page(page_size)) sum = toggle(sum, page_checksum(number, page(number)));
    }
    return sum;
  }
};

Result<Database> read_database(const std::string& path) {
  Database database;
  OFFPRINT_TRY_ASSIGN(database.content, read_file(FileSystem::real(), path, kSizeMax));
  if (database.content.size() < 100) return fail(Code::kInvalid, path + " is no database");
  database.page_size = load_be<std::uint16_t>(database.content.data() + 16);
  if (database.page_size == 1) database.page_size = 65536;
  if (database.page_size < 512 || database.content.size() % database.page_size != 0) {
    return fail(Code::kInvalid, path + " is no database");
  }
  return database;
}

Result<> encode(const Database& before, const Database& after, TxId txid,
                const CompactOptions& options, const std::string& out) {
  Header header;
  header.flags = options.flags;
  header.page_size = after.page_size != 0 ? after.page_size : before.page_size;
  header.page_count = after.page_count();
  header.min_txid = header.max_txid = txid;
  header.timestamp_ms = 1'700'000'000'000;
  if (header.tracks_checksum() && !header.is_snapshot()) header.pre_apply = before.checksum();
  Bytes file;
  BytesSink sink(file);
  Encoder encoder(sink, options.encoding);
  OFFPRINT_TRY(encoder.begin(header));
  for (PageNo number = 1; number <= after.page_count(); ++number) {
    if (number == lock_page(after.page_size)) continue;
    const ByteView page = after.page(number);
    const bool same =
        number <= before.page_count() && std::ranges::equal(page, before.page(number));
    if (header.is_snapshot() || !same) OFFPRINT_TRY(encoder.page(number, page));
  }
  OFFPRINT_TRY(encoder.finish(header.tracks_checksum() ? after.checksum() : Checksum{}));
  return write_file_atomically(FileSystem::real(), out, file);
}

Result<> apply(const std::string& path, const std::string& file) {
  OFFPRINT_TRY_ASSIGN(const Bytes bytes, read_file(FileSystem::real(), file, kSizeMax));
  OFFPRINT_TRY_ASSIGN(const DecodedFile decoded, decode(bytes));
  const Header& header = decoded.header;
  OFFPRINT_TRY_ASSIGN(const bool exists, FileSystem::real().exists(path));
  Database database;
  if (exists) {
    OFFPRINT_TRY_ASSIGN(database.content, read_file(FileSystem::real(), path, kSizeMax));
  }
  database.page_size = header.page_size;
  const bool tracked = header.tracks_checksum();
  if (tracked && !header.is_snapshot() && database.checksum() != header.pre_apply) {
    return fail(Code::kConflict, "the database is not where this file begins");
  }
  database.content.resize(std::size_t{header.page_count} * header.page_size);
  for (const auto& [number, content] : decoded.pages) {
    std::ranges::copy(content,
                      database.content.begin() + (std::ptrdiff_t{number} - 1) * header.page_size);
  }
  if (tracked && database.checksum() != decoded.trailer.post_apply) {
    return fail(Code::kCorrupt, "the database is not where this file should lead");
  }
  return write_file_atomically(FileSystem::real(), path, database.content);
}

Result<> compact_files(const std::string& out, std::span<const std::string> files,
                       const CompactOptions& options) {
  std::deque<Bytes> contents;
  std::deque<BytesSource> sources;
  std::vector<ByteSource*> inputs;
  for (const std::string& file : files) {
    OFFPRINT_TRY_ASSIGN(contents.emplace_back(), read_file(FileSystem::real(), file, kSizeMax));
    inputs.push_back(&sources.emplace_back(contents.back()));
  }
  Bytes merged;
  BytesSink sink(merged);
  OFFPRINT_TRY(compact(inputs, options, sink));
  return write_file_atomically(FileSystem::real(), out, merged);
}

// Answers nothing when the arguments make no sense.
std::optional<Result<>> run(std::vector<std::string> args) {
  CompactOptions options;
  for (; !args.empty() && args.back().starts_with("--"); args.pop_back()) {
    if (args.back() == "--no-checksum") {
      options.flags = kNoChecksumFlag;
    } else if (args.back() == "--frames") {
      options.encoding = PageEncoding::kFrame;
    } else {
      return std::nullopt;
    }
  }
  if (args.size() < 2) return std::nullopt;
  const std::string& verb = args[0];
  const std::span<const std::string> rest = std::span(args).subspan(1);
  const auto steps = [&]() -> Result<> {
    if (verb == "checksum") {
      OFFPRINT_TRY_ASSIGN(const Database database, read_database(rest[0]));
      fmt::print("{:016x}\n", database.checksum().value);
    } else if (verb == "encode") {
      OFFPRINT_TRY_ASSIGN(const Database after, read_database(rest[0]));
      Database before;
      if (rest.size() > 3) {
        OFFPRINT_TRY_ASSIGN(before, read_database(rest[3]));
      }
      return encode(before, after, TxId{std::stoull(rest[2])}, options, rest[1]);
    } else if (verb == "delete") {
      OFFPRINT_TRY_ASSIGN(const Database before, read_database(rest[0]));
      return encode(before, Database{}, TxId{std::stoull(rest[2])}, {}, rest[1]);
    } else if (verb == "compact") {
      return compact_files(rest[0], rest.subspan(1), options);
    } else if (verb == "verify") {
      for (const std::string& file : rest) {
        OFFPRINT_TRY_ASSIGN(const Bytes bytes, read_file(FileSystem::real(), file, kSizeMax));
        OFFPRINT_TRY(decode(bytes));
      }
    } else if (verb == "apply") {
      for (const std::string& file : rest.subspan(1)) OFFPRINT_TRY(apply(rest[0], file));
    }
    return {};
  };
  if ((verb == "encode" || verb == "delete") && rest.size() < 3) return std::nullopt;
  return steps();
}

}  // namespace
}  // namespace offprint::ltx

int main(int argc, char** argv) {
  const auto done = offprint::ltx::run({argv + 1, argv + argc});
  if (!done) {
    fmt::print(stderr, "{}", offprint::ltx::kUsage);
    return 2;
  }
  if (!*done) {
    fmt::print(stderr, "{}\n", done->error().message());
    return 1;
  }
  return 0;
}
