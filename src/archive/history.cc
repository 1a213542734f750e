#include "archive/history.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/random.h"

namespace offprint::archive {
namespace {

constexpr std::string_view kFirstLine = "offprint archive ";
constexpr int kVersion = 1;

// Takes the words of one line. After a word that is missing or wrong, ok() is false for good.
class Words {
 public:
  explicit Words(std::string_view line) : rest_(line) {}

  std::string_view next() {
    std::size_t end = rest_.find(' ');
    std::string_view word = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
    ok_ = ok_ && !word.empty();
    return word;
  }
  template <class Number>
  Number number(int base = 10) {
    std::string_view word = next();
    Number value{};
    auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    ok_ = ok_ && error == std::errc() && end == word.data() + word.size();
    return value;
  }
  Bookmark bookmark() {
    auto parsed = Bookmark::parse(next());
    ok_ = ok_ && parsed;
    return parsed.value_or(Bookmark());
  }
  bool ok() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::uint32_t crc_of(std::string_view text) { return crc32c(as_bytes(text)); }

}  // namespace

Result<Bookmark> History::bookmark_of(TxId txid) const {
  auto after = std::ranges::upper_bound(parts, txid, {}, [](const Part& p) { return p.from.txid; });
  if (after == parts.begin())
    return fail(Code::kNotFound, "before the archive's first transaction");
  Bookmark found = std::prev(after)->from;
  found.txid = txid;
  return found;
}

bool History::holds(const Bookmark& bookmark) const {
  auto found = bookmark_of(bookmark.txid);
  return found && *found == bookmark;
}

std::string History::text() const {
  std::string text = fmt::format("{}{}\ndatabase {} {}\n", kFirstLine, kVersion, database,
                                 foreign_keys ? "foreign_keys" : "-");
  for (const Part& part : parts)
    text += fmt::format("from {} {}\n", part.from.text(), part.since_ms);
  text += fmt::format("head {} {:016x} {}\n", head.bookmark().text(), head.checksum.value, head_ms);
  text += fmt::format("end {:08x}\n", crc_of(text));
  return text;
}

Result<History> History::parse(std::string_view text) {
  auto damaged = [](std::string_view what) {
    return fail(Code::kCorrupt, fmt::format("the archive's history is damaged: {}", what));
  };
  int version = 0;
  if (!text.starts_with(kFirstLine)) return damaged("it does not begin as one");
  std::string_view number = text.substr(kFirstLine.size());
  if (std::from_chars(number.data(), number.data() + number.size(), version).ec != std::errc())
    return damaged("it has no version");
  if (version > kVersion) {
    return fail(
        Code::kInvalid,
        fmt::format("the archive is of format {}, this program knows up to {}", version, kVersion));
  }
  constexpr std::size_t kEndSize = sizeof("end 01234567\n") - 1;
  if (text.size() < kEndSize || text.back() != '\n') return damaged("it is cut off");
  std::string_view end = text.substr(text.size() - kEndSize);
  text.remove_suffix(kEndSize);
  if (end != fmt::format("end {:08x}\n", crc_of(text))) return damaged("its checksum is wrong");

  History history;
  bool has_head = false;
  for (std::size_t begin = text.find('\n') + 1; begin < text.size();) {
    std::size_t line_end = text.find('\n', begin);
    if (line_end == std::string_view::npos) return damaged("it is cut off");
    Words words(text.substr(begin, line_end - begin));
    begin = line_end + 1;
    std::string_view kind = words.next();
    if (kind == "database") {
      history.database = words.next();
      history.foreign_keys = words.next() == "foreign_keys";
    } else if (kind == "from") {
      Part part;
      part.from = words.bookmark();
      part.since_ms = words.number<std::int64_t>();
      if (!history.parts.empty() && part.from.txid <= history.parts.back().from.txid)
        return damaged("its parts are not in order");
      history.parts.push_back(part);
    } else if (kind == "head") {
      Bookmark head = words.bookmark();
      history.head = {head.lineage, head.epoch, head.txid,
                      Checksum{words.number<std::uint64_t>(16)}};
      history.head_ms = words.number<std::int64_t>();
      has_head = true;
    } else {
      return damaged("a line of an unknown kind");
    }
    if (!words.ok()) return damaged("a line that cannot be read");
  }
  if (!has_head || history.database.empty()) return damaged("a line is missing");
  return history;
}

}  // namespace offprint::archive
