#include "archive/lease.h"

#include <algorithm>

#include <fmt/format.h>

namespace offprint::archive {
namespace {

constexpr std::string_view kFirstLine = "offprint lease 1\n";

}  // namespace

Result<> Lease::hold() {
  std::lock_guard lock(mutex_);
  SteadyClock::time_point now = SteadyClock::now();
  if (!version_.empty() && now - looked_at_ < looked_at_max_) return {};
  if (!version_.empty()) {
    auto info = objects_.info(kLeaseKey);
    if (!info && info.error().code() != Code::kNotFound) return fail(info.error());
    if (info && info->version == version_) {
      looked_at_ = now;
      return {};
    }
  }
  return take();
}

// mutex_ held.
Result<> Lease::take() {
  version_.clear();
  PutOptions options;
  auto info = objects_.info(kLeaseKey);
  if (!info && info.error().code() != Code::kNotFound) return fail(info.error());
  if (!info) {
    options.if_absent = true;
  } else {
    OFFPRINT_TRY_ASSIGN(Bytes bytes, read_object(objects_, kLeaseKey, 64 << 10));
    std::string_view text = as_text(bytes);
    if (!text.starts_with(kFirstLine)) {
      return fail(Code::kConflict,
                  fmt::format("{}/{} is damaged or of a newer version", objects_.url(), kLeaseKey));
    }
    text.remove_prefix(kFirstLine.size());
    std::string_view owner = text.substr(0, text.find('\n'));
    const bool is_ours = owner == owner_ || (!group_.empty() && owner.starts_with(group_)) ||
                         std::ranges::find(former_, owner) != former_.end();
    if (!is_ours && !take_over_) {
      return fail(Code::kConflict,
                  fmt::format("{} is the archive of node '{}': two nodes cannot share one. Give "
                              "each its own; --archive-take-over if that node is gone for good",
                              objects_.url(), owner));
    }
    options.if_version = info->version;
  }
  std::string text = fmt::format("{}{}\n", kFirstLine, owner_);
  ltx::BytesSource source(as_bytes(text));
  OFFPRINT_TRY_ASSIGN(ObjectInfo put, objects_.put(kLeaseKey, source, options));
  version_ = put.version;
  looked_at_ = SteadyClock::now();
  former_.clear();
  take_over_ = false;
  if (taken_) taken_();
  return {};
}

}  // namespace offprint::archive
