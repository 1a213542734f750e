#include "cluster/parts.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/log.h"

namespace offprint::cluster {
namespace {

constexpr std::size_t kPartNameSize = 12, kPartsNameSize = 28;

const Bytes* find_value(const std::vector<journal::Metadata>& metadata, journal::MetadataType type,
                        std::size_t size) {
  auto found = std::ranges::find(metadata, type, &journal::Metadata::type);
  return found == metadata.end() || found->value.size() < size ? nullptr : &found->value;
}

}  // namespace

journal::Metadata PartName::metadata() const {
  Bytes value(kPartNameSize);
  store_be<std::uint64_t>(value.data(), id);
  store_be<std::uint32_t>(value.data() + 8, number);
  return {journal::MetadataType::kPart, std::move(value)};
}

std::optional<PartName> PartName::in(const std::vector<journal::Metadata>& metadata) {
  const Bytes* value = find_value(metadata, journal::MetadataType::kPart, kPartNameSize);
  if (value == nullptr) return std::nullopt;
  return PartName{load_be<std::uint64_t>(value->data()), load_be<std::uint32_t>(value->data() + 8)};
}

journal::Metadata PartsName::metadata() const {
  Bytes value(kPartsNameSize);
  store_be<std::uint64_t>(value.data(), id);
  store_be<std::uint32_t>(value.data() + 8, count);
  store_be<std::uint64_t>(value.data() + 12, first.value);
  store_be<std::uint64_t>(value.data() + 20, size);
  return {journal::MetadataType::kParts, std::move(value)};
}

std::optional<PartsName> PartsName::in(const std::vector<journal::Metadata>& metadata) {
  const Bytes* value = find_value(metadata, journal::MetadataType::kParts, kPartsNameSize);
  if (value == nullptr) return std::nullopt;
  const std::uint8_t* at = value->data();
  return PartsName{load_be<std::uint64_t>(at), load_be<std::uint32_t>(at + 8),
                   Lsn{load_be<std::uint64_t>(at + 12)}, load_be<std::uint64_t>(at + 20)};
}

void Parts::take(const PeerRecord& part) {
  const auto name = PartName::in(part.metadata);
  if (!name) return;
  const Deadline now = SteadyClock::now();
  std::lock_guard lock(mutex_);
  std::erase_if(arrivals_,
                [&](const auto& each) { return each.second.touched < now - kPartsLeftAfter; });
  if (name->number == 0) {
    Arrival begun;
    if (auto payload = journal_.create_large_payload()) begun.payload = *std::move(payload);
    arrivals_.insert_or_assign(name->id, std::move(begun));
  }
  auto found = arrivals_.find(name->id);
  if (found == arrivals_.end()) return;  // begun before this node was started: whole() reads it
  Arrival& arrival = found->second;
  arrival.touched = now;
  const bool goes_on =
      arrival.payload && arrival.next == name->number && arrival.payload->write(part.payload);
  if (!goes_on) arrival.payload.reset();
  ++arrival.next;
}

void Parts::sync() {
  std::vector<std::shared_ptr<journal::LargePayload>> all;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, arrival] : arrivals_) {
      if (arrival.payload) all.push_back(arrival.payload);
    }
  }
  for (const auto& payload : all) (void)payload->sync();  // its end says what became of it
}

void Parts::forget() {
  std::lock_guard lock(mutex_);
  arrivals_.clear();
}

Result<std::shared_ptr<journal::LargePayload>> Parts::whole(const PartsName& name, Lsn end,
                                                            const Find& find) {
  Arrival arrival;
  {
    std::lock_guard lock(mutex_);
    if (auto node = arrivals_.extract(name.id)) arrival = std::move(node.mapped());
  }
  const bool is_whole =
      arrival.payload && arrival.next == name.count && arrival.payload->size() == name.size;
  if (is_whole && arrival.payload->finish()) return std::move(arrival.payload);
  return read_again(name, end, find);
}

Result<std::shared_ptr<journal::LargePayload>> Parts::read_again(const PartsName& name, Lsn end,
                                                                 const Find& find) {
  log::info("a transaction of {} MiB is read again from the journal", name.size >> 20);
  OFFPRINT_TRY_ASSIGN(auto payload, journal_.create_large_payload());
  std::uint32_t next = 0;
  for (std::uint64_t lsn = name.first.value; lsn < end.value && next < name.count; ++lsn) {
    const auto place = find(Lsn{lsn});
    if (!place)
      return fail(Code::kNotFound, fmt::format("record {}, a part of it, is not kept", lsn));
    OFFPRINT_TRY_ASSIGN(journal::Record record, journal_.read(*place));
    const auto part = PartName::in(record.metadata);
    if (record.kind != journal::Kind::kPart || !part || part->id != name.id) continue;
    if (part->number != next) break;
    OFFPRINT_TRY(payload->write(record.payload));
    ++next;
  }
  if (next != name.count || payload->size() != name.size) {
    return fail(Code::kNotFound,
                fmt::format("{} of its {} parts are in the log", next, name.count));
  }
  OFFPRINT_TRY(payload->finish());
  return std::shared_ptr<journal::LargePayload>(std::move(payload));
}

}  // namespace offprint::cluster
