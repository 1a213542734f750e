#include "database/usage_keeper.h"

#include <algorithm>

#include "base/log.h"

namespace offprint::database {
namespace {

constexpr int kMonthsKept = 13;  // this one and twelve before it
// Of a transaction of the catalog, whose other users wait meanwhile.
constexpr std::size_t kRecordsMax = 500;

}  // namespace

void UsageKeeper::start(Catalog& catalog) {
  {
    std::lock_guard lock(mutex_);
    catalog_ = &catalog;
    if (Result<> begun = begin_month(month_of(environment_.options.wall_clock_ms())); !begun)
      log::warn("usage of old months stays: {}", begun.error().message());
  }
  arm();
}

// An interval lies within one month.
void UsageKeeper::arm() {
  std::int64_t now = environment_.options.wall_clock_ms();
  std::int64_t wait_ms =
      std::min<std::int64_t>(environment_.options.usage_flush_ms, next_month_ms(now) - now);
  environment_.timers.at(SteadyClock::now() + std::chrono::milliseconds(wait_ms), [this] {
    environment_.helpers.post([this] {
      if (Result<> kept = flush(); !kept)
        log::warn("usage of databases is kept later: {}", kept.error().message());
      arm();
    });
  });
}

Result<> UsageKeeper::flush() {
  std::lock_guard lock(mutex_);
  return flush_locked();
}

std::vector<std::string> UsageKeeper::months_kept() const {
  const std::string month = month_of(environment_.options.wall_clock_ms());
  std::vector<std::string> months;
  for (int i = 0; i < kMonthsKept; ++i) months.push_back(months_before(month, i));
  return months;
}

void UsageKeeper::stop() {
  std::lock_guard lock(mutex_);
  // A copy has no list of its own to keep it in.
  if (Result<> kept = flush_locked(); !kept && kept.error().code() != Code::kNotPrimary)
    log::warn("the last usage of databases is lost: {}", kept.error().message());
  catalog_ = nullptr;
}

Result<> UsageKeeper::flush_locked() {
  if (catalog_ == nullptr) return {};
  const std::string month_now = month_of(environment_.options.wall_clock_ms());
  auto used = environment_.usage.take();
  for (std::size_t begin = 0; begin < used.size(); begin += kRecordsMax) {
    std::size_t end = std::min(begin + kRecordsMax, used.size());
    std::vector<UsageRecord> records;
    for (std::size_t i = begin; i < end; ++i) {
      std::uint64_t size = size_of_(used[i].name, used[i].id).value_or(0);
      records.push_back({month_, used[i].id, used[i].name, used[i].count, size, size, false});
    }
    if (Result<> kept = catalog_->add_usage(records); !kept) {
      for (std::size_t i = begin; i < used.size(); ++i) environment_.usage.give_back(used[i]);
      return kept;
    }
  }
  if (month_now != month_) OFFPRINT_TRY(begin_month(month_now));
  return {};
}

Result<> UsageKeeper::begin_month(const std::string& month) {
  month_ = month;
  return catalog_->forget_usage_before(months_before(month, kMonthsKept - 1));
}

}  // namespace offprint::database
