#include "archive/lease.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace offprint::archive {
namespace {

constexpr std::string_view kFirstLine = "offprint lease 1\n";

}  // namespace

Result<> Lease::hold() {
  std::lock_guard lock(mutex_);
  if (until_ms_ - wall_clock_ms_() >= kLeaseMs / 2) return {};
  if (version_.empty()) return take();
  PutOptions options;
  options.if_version = version_;
  Result<> prolonged = write(wall_clock_ms_() + kLeaseMs, options);
  if (!prolonged && prolonged.error().code() == Code::kConflict) {
    version_.clear();  // somebody took it while we were idle; or our own answer was lost
    return take();
  }
  return prolonged;
}

// mutex_ held.
Result<> Lease::take() {
  PutOptions options;
  auto info = objects_.info(kLeaseKey);
  if (!info && info.error().code() != Code::kNotFound) return fail(info.error());
  if (!info) {
    options.if_absent = true;
  } else {
    OFFPRINT_TRY_ASSIGN(Bytes bytes, read_object(objects_, kLeaseKey, 64 << 10));
    std::string_view text = as_text(bytes);
    if (!text.starts_with(kFirstLine))
      return fail(Code::kConflict, fmt::format("{}/{} is of a newer version or damaged: remove it "
                                               "when no other node writes this archive",
                                               objects_.url(), kLeaseKey));
    text.remove_prefix(kFirstLine.size());
    std::size_t end = text.find('\n');
    std::string_view owner = text.substr(0, end);
    std::string_view number = end == std::string_view::npos ? "" : text.substr(end + 1);
    std::int64_t until_ms = 0;
    std::from_chars(number.data(), number.data() + number.size(), until_ms);
    bool is_ours = owner == owner_ || std::ranges::find(former_, owner) != former_.end();
    if (std::int64_t left = until_ms - wall_clock_ms_(); !is_ours && left > 0) {
      return fail(Code::kConflict,
                  fmt::format("the archive {} is written by node {} for another {} s: two nodes "
                              "cannot share one; give each its own folder",
                              objects_.url(), owner, (left + 999) / 1000));
    }
    options.if_version = info->version;
  }
  return write(wall_clock_ms_() + kLeaseMs, options);
}

// mutex_ held.
Result<> Lease::write(std::int64_t until_ms, const PutOptions& options) {
  std::string text = fmt::format("{}{}\n{}\n", kFirstLine, owner_, until_ms);
  ltx::BytesSource source(as_bytes(text));
  OFFPRINT_TRY_ASSIGN(ObjectInfo info, objects_.put(kLeaseKey, source, options));
  version_ = info.version;
  until_ms_ = until_ms;
  former_.clear();
  return {};
}

void Lease::release() {
  std::lock_guard lock(mutex_);
  if (version_.empty()) return;
  PutOptions options;
  options.if_version = version_;
  (void)write(0, options);
  version_.clear();
  until_ms_ = 0;
}

}  // namespace offprint::archive
