#include "archive/chain.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/clock.h"

namespace offprint::archive {
namespace {

// "transaction 7" or "transactions 7–9".
std::string transactions_text(std::uint64_t first, std::uint64_t last) {
  if (first == last) return fmt::format("transaction {} is", first);
  return fmt::format("transactions {}–{} are", first, last);
}

// At most `limit` bytes of another source.
class FirstBytes final : public ltx::ByteSource {
 public:
  FirstBytes(ltx::ByteSource& from, std::size_t limit) : from_(from), left_(limit) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override {
    OFFPRINT_TRY_ASSIGN(const std::size_t got, from_.read(to.first(std::min(left_, to.size()))));
    left_ -= got;
    return got;
  }

 private:
  ltx::ByteSource& from_;
  std::size_t left_;
};

// What the keys of all levels begin with.
std::string common_prefix(const ObjectStore& store) {
  std::string common = store.level_prefix(0);
  for (int level = 1; level < kLevels; ++level) {
    const std::string other = store.level_prefix(level);
    common.erase(std::ranges::mismatch(common, other).in1, common.end());
  }
  return common;
}

}  // namespace

Result<ltx::Header> read_header(ObjectStore& store, const std::string& key) {
  OFFPRINT_TRY_ASSIGN(auto object, store.get(key));
  FirstBytes source(*object, ltx::kHeaderSize);
  ltx::Decoder decoder(source);
  auto header = decoder.begin();
  if (!header) return fail(header.error().with_context(key));
  return *header;
}

Result<std::vector<ArchivedFile>> list_files(ObjectStore& store, const std::string& prefix) {
  // One list for all levels: services ask money for each. Lower levels come first in it: what is
  // put together meanwhile is in the higher one then.
  OFFPRINT_TRY_ASSIGN(auto objects, store.list(prefix + common_prefix(store)));
  std::vector<ArchivedFile> files;
  auto object = objects.begin();
  for (int level = 0; level < kLevels; ++level) {
    const std::string folder = prefix + store.level_prefix(level);
    object = std::ranges::lower_bound(object, objects.end(), folder, {}, &ObjectInfo::key);
    for (; object != objects.end() && object->key.starts_with(folder); ++object) {
      const auto range = ltx::parse_file_name(std::string_view(object->key).substr(folder.size()));
      if (!range || range->first.value == 0 || range->second < range->first) continue;
      files.push_back(
          {level, range->first, range->second, object->key, object->size, object->timestamp_ms});
    }
  }
  return files;
}

Chain::Chain(std::vector<ArchivedFile> files) : files_(std::move(files)) {
  std::ranges::sort(files_, {}, [](const ArchivedFile& file) {
    return std::tuple(file.max_txid, file.min_txid, file.level);
  });
  // By end: what reaches further is of no help for what does not.
  TxId reached;
  for (const ArchivedFile& file : files_) {
    if (file.max_txid == reached || file.min_txid > reached.next()) continue;
    reached = file.max_txid;
    restorable_.push_back(reached);
  }
}

TxId Chain::newest() const { return files_.empty() ? TxId{} : files_.back().max_txid; }

TxId Chain::before(TxId target) const {
  const auto after = std::ranges::upper_bound(restorable_, target);
  return after == restorable_.begin() ? TxId{} : *std::prev(after);
}

const ArchivedFile& Chain::shortest_to(TxId txid) const {
  const auto after = std::ranges::upper_bound(files_, txid, {}, &ArchivedFile::max_txid);
  OFFPRINT_ASSERT(after != files_.begin());
  return *std::prev(after);
}

std::unexpected<Error> Chain::missing_after(TxId reached) const {
  std::optional<TxId> next;
  for (const ArchivedFile& file : files_) {
    if (file.max_txid > reached && (!next || file.min_txid < *next)) next = file.min_txid;
  }
  OFFPRINT_ASSERT(next && *next > reached.next());
  const std::uint64_t first = reached.value + 1;
  return fail(Code::kCorrupt,
              fmt::format("{} missing: no file of any level begins at or before {}; {}",
                          transactions_text(first, next->value - 1), first,
                          reached.value == 0
                              ? "nothing before can be restored"
                              : fmt::format("transaction {} can be restored", reached.value)));
}

Result<std::vector<ArchivedFile>> Chain::files_to(TxId target) const {
  if (files_.empty()) return fail(Code::kNotFound, "the archive has no files");
  if (target > newest()) {
    return fail(Code::kNotFound, fmt::format("the archive ends at transaction {}", newest().value));
  }
  const TxId nearest = before(target);
  if (nearest != target) {
    const auto later = std::ranges::upper_bound(restorable_, target);
    const bool leads_on = std::ranges::any_of(files_, [&](const ArchivedFile& file) {
      return file.max_txid > nearest && file.min_txid <= nearest.next();
    });
    if (!leads_on) return missing_after(nearest);
    OFFPRINT_ASSERT(later != restorable_.end());
    if (nearest.value == 0) {
      return fail(Code::kNotFound,
                  fmt::format("transaction {} is before the first that can be restored, {}",
                              target.value, later->value));
    }
    return fail(Code::kNotFound,
                fmt::format("transaction {} is kept only together with others; the nearest that "
                            "can be restored are {} and {}",
                            target.value, nearest.value, later->value));
  }

  // At each step the file that reaches furthest. That finds a way whenever there is one: whatever
  // can be applied to a moment can be applied to a later one, if it leads further than that.
  std::vector<const ArchivedFile*> by_begin;
  for (const ArchivedFile& file : files_) {
    if (file.max_txid <= target) by_begin.push_back(&file);
  }
  std::ranges::sort(by_begin, {}, [](const ArchivedFile* file) {
    return std::tuple(file->min_txid, file->max_txid, file->level);
  });
  std::vector<ArchivedFile> found;
  TxId reached;
  const ArchivedFile* best = nullptr;
  for (auto next = by_begin.begin(); reached < target; reached = best->max_txid) {
    // Of equal reach the shorter, of equal files the one of the higher level: it stays longer.
    for (; next != by_begin.end() && (*next)->min_txid <= reached.next(); ++next) {
      if (best == nullptr || (*next)->max_txid >= best->max_txid) best = *next;
    }
    OFFPRINT_ASSERT(best != nullptr && best->max_txid > reached);
    found.push_back(*best);
  }
  return found;
}

Result<TxId> Chain::at_time(
    std::int64_t unix_ms,
    const std::function<Result<std::int64_t>(const ArchivedFile&)>& time_ms) const {
  if (files_.empty()) return fail(Code::kNotFound, "the archive has no files");
  if (restorable_.empty()) return missing_after(TxId{});
  std::size_t begin = 0;
  std::size_t end = restorable_.size();
  std::int64_t first_ms = 0;
  while (begin < end) {
    const std::size_t middle = begin + (end - begin) / 2;
    OFFPRINT_TRY_ASSIGN(const std::int64_t time, time_ms(shortest_to(restorable_[middle])));
    if (time <= unix_ms) {
      begin = middle + 1;
    } else {
      end = middle;
      first_ms = time;
    }
  }
  if (begin == 0) {
    return fail(Code::kNotFound,
                fmt::format("the first moment that can be restored is {} (transaction {})",
                            format_rfc3339(first_ms), restorable_.front().value));
  }
  const TxId found = restorable_[begin - 1];
  // Beyond the last that can be restored there may be files that nothing leads to.
  if (begin == restorable_.size() && newest() > found) {
    const auto beyond = std::ranges::upper_bound(files_, found, {}, &ArchivedFile::max_txid);
    OFFPRINT_TRY_ASSIGN(const std::int64_t time, time_ms(*beyond));
    if (time <= unix_ms) return missing_after(found);
  }
  return found;
}

}  // namespace offprint::archive
