// Of Publications: who reads what is published.
#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "publication/publications.h"

namespace offprint::publication {
namespace {

using database::DatabaseName;
using database::StoredConsumer;

constexpr std::size_t kConsumersMax = 1'000;  // of a version
constexpr std::size_t kNameSizeMax = 63;

bool is_consumer_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameSizeMax && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

}  // namespace

// What the list of publications does not say itself.
Result<> Publications::complete(const DatabaseName& source, std::vector<PublicationInfo>& infos) {
  OFFPRINT_TRY_ASSIGN(auto consumers, store_.consumers(source));
  for (PublicationInfo& info : infos) {
    for (const StoredConsumer& each : consumers) {
      if (each.publication == info.stored.name && each.version == info.stored.version)
        info.consumers.push_back(each);
    }
  }
  std::unique_ptr<SourceState> state;
  for (PublicationInfo& info : infos) {
    if (!info.stored.is_live()) continue;
    if (info.is_gathered()) {
      info.broken = why_broken_now(source, info);
      continue;
    }
    if (!state) {
      OFFPRINT_TRY_ASSIGN(state, SourceState::newest(store_, source));
    }
    OFFPRINT_TRY(state->with([&](sqlite::Connection& connection) -> Result<> {
      Fit fit = fit_of(connection, info.stored);
      info.broken = std::move(fit.broken);
      info.read_whole = std::move(fit.read_whole);
      return {};
    }));
  }
  return {};
}

Result<PublicationInfo> Publications::describe(const DatabaseName& source,
                                               const PublicationName& name) {
  std::vector<PublicationInfo> infos(1);
  OFFPRINT_TRY_ASSIGN(infos[0], find(source, name));
  OFFPRINT_TRY(complete(source, infos));
  return std::move(infos[0]);
}

Result<StoredConsumer> Publications::register_consumer(const DatabaseName& source,
                                                       const PublicationName& name,
                                                       const std::string& consumer,
                                                       std::vector<StoredConsumer::Query> queries) {
  if (!is_consumer_name(consumer)) {
    return fail(Code::kInvalid, fmt::format("'{}' cannot be a consumer's name: up to 63 letters, "
                                            "digits, dots, dashes and underscores",
                                            consumer));
  }
  OFFPRINT_TRY_ASSIGN(auto info, describe(source, name));
  if (!info.stored.is_live()) {
    return fail(
        Code::kInvalid,
        fmt::format("{} is {}: consumers are registered with what is published", info.address(),
                    info.stored.state == State::kDraft ? "a draft" : "retired"));
  }
  if (info.consumers.size() >= kConsumersMax)
    return fail(Code::kInvalid, fmt::format("{} has {} consumers", info.address(), kConsumersMax));
  if (queries.empty()) return fail(Code::kInvalid, "a consumer has a query at least");
  StoredConsumer stored{info.stored.name, info.stored.version, consumer, unix_time_ms(),
                        std::move(queries)};
  OFFPRINT_TRY(with_schema(source, info, [&](auto& connection, const auto& definition) -> Result<> {
    OFFPRINT_TRY_ASSIGN(Plan plan, make_plan(connection, definition));
    return find_reads(plan, stored);
  }));
  OFFPRINT_TRY(store_.put_consumer(source, stored));
  OFFPRINT_TRY(guard(source));
  return stored;
}

Result<std::vector<StoredConsumer>> Publications::consumers(const DatabaseName& source,
                                                            const PublicationName& name) {
  OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
  OFFPRINT_TRY_ASSIGN(auto consumers, store_.consumers(source));
  std::erase_if(consumers, [&](const StoredConsumer& each) {
    return each.publication != info.stored.name || each.version != info.stored.version;
  });
  return consumers;
}

Result<> Publications::unregister_consumer(const DatabaseName& source, const PublicationName& name,
                                           const std::string& consumer) {
  OFFPRINT_TRY_ASSIGN(auto info, find(source, name));
  OFFPRINT_TRY(store_.remove_consumer(source, info.stored.name, info.stored.version, consumer));
  return guard(source);
}

Result<std::vector<ReadColumns>> Publications::source_reads(const DatabaseName& source,
                                                            const PublicationInfo& info) {
  std::vector<ReadColumns> reads;
  if (info.consumers.empty()) return reads;
  auto told = with_schema(source, info, [&](auto& connection, const auto& definition) -> Result<> {
    for (const StoredConsumer& each : info.consumers) {
      auto found = publication::source_reads(connection, definition, each);
      reads.push_back(found ? *std::move(found) : ReadColumns());
    }
    return {};
  });
  // Of what is broken nothing can be told.
  if (!told && !info.is_gathered()) return fail(told.error());
  return reads;
}

}  // namespace offprint::publication
