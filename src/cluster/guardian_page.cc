#include "cluster/guardian_page.h"

#include <cerrno>
#include <cstring>
#include <new>

#include <sys/mman.h>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace offprint::cluster {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free, "two processes share it");

Result<std::unique_ptr<GuardianPage>> GuardianPage::create() {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return fail(Code::kIo, std::string("memory for the guardian: ") + std::strerror(errno));
  return std::unique_ptr<GuardianPage>(new GuardianPage(*new (memory) Shared));
}

GuardianPage::~GuardianPage() { ::munmap(&shared_, sizeof(Shared)); }

void GuardianPage::begin(MemberId self) {
  std::lock_guard lock(mutex_);
  self_ = self;
  epoch_ = {};
  peers_.clear();
  write();
}

void GuardianPage::acts_in(Epoch epoch) {
  std::lock_guard lock(mutex_);
  epoch_ = epoch;
  write();
}

void GuardianPage::know(const std::string& node, const std::string& peer_address) {
  std::lock_guard lock(mutex_);
  if (peer_address.size() > kAddressMax) return;
  if (peers_.size() == kPeersMax && !peers_.contains(node)) return;
  peers_[node] = peer_address;
  write();
}

void GuardianPage::rest() {
  std::lock_guard lock(mutex_);
  epoch_ = {};
  write();
}

// With mutex_ held.
void GuardianPage::write() {
  Bytes body;
  append_be<std::uint64_t>(body, self_.value);
  append_be<std::uint32_t>(body, epoch_.value);
  append_be<std::uint16_t>(body, static_cast<std::uint16_t>(peers_.size()));
  for (const auto& [node, address] : peers_) {
    append_be<std::uint16_t>(body, static_cast<std::uint16_t>(address.size()));
    append(body, as_bytes(address));
  }
  const std::uint32_t next = shared_.current.load(std::memory_order_relaxed) == 1 ? 2 : 1;
  Slot& slot = shared_.slots[next - 1];
  slot.size = static_cast<std::uint32_t>(body.size());
  slot.checksum = crc32c(body);
  std::memcpy(slot.body, body.data(), body.size());
  shared_.current.store(next, std::memory_order_release);
}

std::optional<GuardianPage::LastWords> GuardianPage::read() const {
  const std::uint32_t current = shared_.current.load(std::memory_order_acquire);
  if (current != 1 && current != 2) return std::nullopt;
  const Slot& slot = shared_.slots[current - 1];
  if (slot.size < kFixed || slot.size > sizeof slot.body) return std::nullopt;
  ByteView body = ByteView(slot.body).first(slot.size);
  if (crc32c(body) != slot.checksum) return std::nullopt;
  LastWords words;
  words.member = {load_be<std::uint64_t>(body.data())};
  words.epoch = {load_be<std::uint32_t>(body.data() + 8)};
  auto count = load_be<std::uint16_t>(body.data() + 12);
  body = body.subspan(kFixed);
  for (; count > 0; --count) {
    if (body.size() < 2) return std::nullopt;
    const std::size_t size = load_be<std::uint16_t>(body.data());
    if (body.size() < 2 + size) return std::nullopt;
    words.peers.emplace_back(as_text(body.subspan(2, size)));
    body = body.subspan(2 + size);
  }
  if (words.epoch.value == 0 || words.member.value == 0) return std::nullopt;
  return words;
}

}  // namespace offprint::cluster
