#include "database/past_snapshot.h"

#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

#include "database/replay.h"
#include "database/undo.h"
#include "ltx/checksum.h"
#include "ltx/page_delta.h"

namespace offprint::database {
namespace {

// Page images in a file that has no name any more.
class PageFile {
 public:
  static Result<PageFile> create(FileSystem& files, const std::string& path,
                                 std::uint32_t page_size) {
    OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kCreateNew));
    OFFPRINT_TRY(files.remove(path));
    return PageFile(std::move(file), page_size);
  }
  Result<> add(PageNo page, ByteView image) {
    OFFPRINT_TRY(file_->write_at(places_.size() * std::uint64_t{page_size_}, image));
    places_.emplace(page, static_cast<std::uint32_t>(places_.size()));
    return {};
  }
  bool has(PageNo page) const { return places_.contains(page); }
  Result<> read(PageNo page, std::span<std::uint8_t> to) const {
    OFFPRINT_TRY_ASSIGN(std::size_t size,
                        file_->read_at(places_.at(page) * std::uint64_t{page_size_}, to));
    if (size != to.size()) return fail(Code::kIo, "a page that was put aside is not there");
    return {};
  }

 private:
  PageFile(std::unique_ptr<File> file, std::uint32_t page_size)
      : file_(std::move(file)), page_size_(page_size) {}
  std::unique_ptr<File> file_;
  std::uint32_t page_size_;
  std::unordered_map<PageNo, std::uint32_t> places_;
};

class PastSnapshot final : public Snapshot {
 public:
  // `newest`, which may be null, has the pages that are not in `differing`.
  PastSnapshot(std::unique_ptr<Snapshot> newest, PageFile differing, const Position& position,
               std::uint32_t page_size, std::uint32_t page_count)
      : newest_(std::move(newest)),
        differing_(std::move(differing)),
        position_(position),
        page_count_(page_count),
        buffer_(page_size) {}
  Position position() const override { return position_; }
  std::uint32_t page_size() const override { return static_cast<std::uint32_t>(buffer_.size()); }
  std::uint32_t page_count() const override { return page_count_; }
  Result<ByteView> page(PageNo page) override {
    if (page == 0 || page > page_count_)
      return fail(Code::kNotFound, fmt::format("page {} does not exist", page));
    if (differing_.has(page)) {
      OFFPRINT_TRY(differing_.read(page, buffer_));
    } else if (newest_) {
      return newest_->page(page);
    } else {  // the lock page
      std::ranges::fill(buffer_, 0);
    }
    return ByteView(buffer_);
  }

 private:
  std::unique_ptr<Snapshot> newest_;
  PageFile differing_;
  const Position position_;
  const std::uint32_t page_count_;
  Bytes buffer_;
};

// Takes transactions back, the oldest first: of a page the first one that changed it knows what it
// was.
class Unwinding {
 public:
  Unwinding(PastSource& source, journal::Journal& journal, PageFile& differing)
      : newest_(*source.newest), journal_(journal), differing_(differing) {}

  Result<> take_back(const LogEntry& entry) {
    auto record = journal_.read(entry.location);
    if (!record && record.error().code() == Code::kNotFound) return too_old(entry);
    if (!record) return fail(std::move(record).error());
    const Bytes* bytes = find_metadata(*record, journal::MetadataType::kUndo);
    if (bytes == nullptr) return too_old(entry);
    OFFPRINT_TRY_ASSIGN(Undo undo, read_undo(*bytes));
    if (page_count_ == 0) page_count_ = undo.page_count;
    std::unordered_map<PageNo, ByteView> deltas;  // of pages that the transaction carries
    for (const Undo::Page& page : undo.pages) {
      if (page.number > page_count_ || differing_.has(page.number)) continue;
      if (!page.is_gone) {
        deltas.emplace(page.number, page.delta);
      } else {
        OFFPRINT_TRY(add(page.number, {}, page.delta));
      }
    }
    if (deltas.empty() && checksum_.value != 0) return {};
    return take_from_file(*record, deltas);
  }

  // Of the state that was reached.
  std::uint32_t page_count() const { return page_count_; }
  Result<Checksum> checksum() {
    Checksum checksum = newest_.position().checksum;
    for (PageNo page = page_count_ + 1; page <= newest_.page_count(); ++page)
      OFFPRINT_TRY(toggle_newest(page, checksum));
    for (PageNo page : pages_) {
      OFFPRINT_TRY(toggle_newest(page, checksum));
      OFFPRINT_TRY(differing_.read(page, image_));
      checksum = ltx::toggle(checksum, ltx::page_checksum(page, image_));
    }
    return checksum;
  }
  // What the first transaction that was taken back says that it was.
  Checksum stated_checksum() const { return checksum_; }

 private:
  static std::unexpected<Error> too_old(const LogEntry& entry) {
    return fail(Code::kBehind,
                fmt::format("the log does not lead back beyond transaction {}", entry.txid.value));
  }

  Result<> add(PageNo page, ByteView base, ByteView delta) {
    image_.resize(newest_.page_size());
    OFFPRINT_TRY(ltx::apply_page_delta(base, delta, image_));
    pages_.push_back(page);
    return differing_.add(page, image_);
  }

  Result<> take_from_file(const journal::Record& record,
                          const std::unordered_map<PageNo, ByteView>& deltas) {
    OFFPRINT_TRY_ASSIGN(auto large, record.location.large
                                        ? journal_.open_payload(record.location)
                                        : Result<std::unique_ptr<ltx::ByteSource>>(nullptr));
    ltx::BytesSource small(record.payload);
    ltx::Decoder decoder(large ? *large : small);
    OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
    if (checksum_.value == 0) checksum_ = header.pre_apply;
    std::size_t taken = 0;
    for (;;) {
      OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
      if (!page) break;
      auto delta = deltas.find(page->number);
      if (delta == deltas.end()) continue;
      OFFPRINT_TRY(add(page->number, page->content, delta->second));
      ++taken;
    }
    OFFPRINT_TRY(decoder.finish());
    if (taken != deltas.size())
      return fail(Code::kCorrupt, "an undo names pages that are not there");
    return {};
  }

  Result<> toggle_newest(PageNo page, Checksum& checksum) {
    if (page > newest_.page_count() || page == ltx::lock_page(newest_.page_size())) return {};
    OFFPRINT_TRY_ASSIGN(ByteView image, newest_.page(page));
    checksum = ltx::toggle(checksum, ltx::page_checksum(page, image));
    return {};
  }

  Snapshot& newest_;
  journal::Journal& journal_;
  PageFile& differing_;
  std::vector<PageNo> pages_;  // in differing_
  std::uint32_t page_count_ = 0;
  Checksum checksum_;
  Bytes image_;
};

}  // namespace

Result<std::unique_ptr<Snapshot>> make_past_snapshot(PastSource source, journal::Journal& journal) {
  OFFPRINT_TRY_ASSIGN(PageFile differing,
                      PageFile::create(source.files, source.path, source.newest->page_size()));
  Unwinding unwinding(source, journal, differing);
  for (const LogEntry& entry : source.undone) OFFPRINT_TRY(unwinding.take_back(entry));
  OFFPRINT_TRY_ASSIGN(Checksum checksum, unwinding.checksum());
  if (checksum != unwinding.stated_checksum()) {
    return fail(Code::kCorrupt, fmt::format("what the log makes of transaction {} has another "
                                            "checksum than it had",
                                            source.at.txid.value));
  }
  const std::uint32_t page_size = source.newest->page_size();
  return std::make_unique<PastSnapshot>(
      std::move(source.newest), std::move(differing),
      Position{source.at.lineage, source.at.epoch, source.at.txid, checksum}, page_size,
      unwinding.page_count());
}

Result<std::unique_ptr<Snapshot>> make_stored_snapshot(ltx::ByteSource& from, const Bookmark& at,
                                                       FileSystem& files, const std::string& path) {
  ltx::Decoder decoder(from);
  OFFPRINT_TRY_ASSIGN(ltx::Header header, decoder.begin());
  OFFPRINT_TRY_ASSIGN(PageFile pages, PageFile::create(files, path, header.page_size));
  for (;;) {
    OFFPRINT_TRY_ASSIGN(auto page, decoder.next());
    if (!page) break;
    OFFPRINT_TRY(pages.add(page->number, page->content));
  }
  OFFPRINT_TRY_ASSIGN(ltx::Trailer trailer, decoder.finish());
  if (!header.is_snapshot() || header.max_txid != at.txid)
    return fail(Code::kCorrupt, "a stored state is not what it should be");
  return std::make_unique<PastSnapshot>(nullptr, std::move(pages),
                                        Position{at.lineage, at.epoch, at.txid, trailer.post_apply},
                                        header.page_size, header.page_count);
}

}  // namespace offprint::database
