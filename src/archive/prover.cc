#include "archive/prover.h"

#include <algorithm>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "archive/node_layout.h"
#include "base/log.h"

namespace offprint::archive {
namespace {

using database::DatabaseName;

// Databases that came or went are noticed so often.
constexpr std::chrono::minutes kLookEvery{1};
// After a failure or a repair.
constexpr std::chrono::hours kAgainAfter{1};
constexpr std::size_t kListedAtOnce = 1'000;
constexpr std::uint64_t kFileBytesMax = 256 << 20;
constexpr const char* kFirstLine = "offprint proofs 1";

std::int64_t count_ms(std::chrono::milliseconds time) { return time.count(); }

}  // namespace

Prover::Prover(ObjectStore& objects, database::Store& store, Repair repair, ProverOptions options)
    : store_(store),
      repair_(std::move(repair)),
      options_(std::move(options)),
      objects_(objects, options_.bytes_per_second) {}

Prover::~Prover() { stop(); }

Result<> Prover::start() {
  OFFPRINT_TRY(options_.files->create_directories(options_.scratch));
  OFFPRINT_TRY_ASSIGN(auto leftovers, options_.files->list(options_.scratch));
  for (const std::string& name : leftovers)
    OFFPRINT_TRY(options_.files->remove(options_.scratch + "/" + name));
  OFFPRINT_TRY(load());
  thread_ = std::thread([this] { run(); });
  return {};
}

void Prover::cancel() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  objects_.cancel();
}

void Prover::stop() {
  cancel();
  if (thread_.joinable()) thread_.join();
}

Prover::Status Prover::status() const {
  std::lock_guard lock(mutex_);
  Status status = status_;
  const std::int64_t now = options_.wall_clock_ms();
  for (const auto& [name, proof] : proofs_) {
    if (proof.proven_ms == 0) ++status.unproven;
    const std::int64_t since = proof.proven_ms != 0 ? proof.proven_ms : proof.known_ms;
    status.oldest_ms = std::max(status.oldest_ms, now - since);
  }
  return status;
}

void Prover::run() {
  while (!stopping_) {
    const std::int64_t now = options_.wall_clock_ms();
    look_at_databases(now);
    std::int64_t due = now + count_ms(kLookEvery);
    if (auto name = next(now, due)) {
      prove(*name);
      continue;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(std::max<std::int64_t>(due - now, 1)),
                      [this] { return stopping_.load(); });
  }
}

// Of what is there and has been written.
void Prover::look_at_databases(std::int64_t now_ms) {
  std::set<std::string> there = {DatabaseName::catalog().text()};
  std::string after;
  for (;;) {
    auto page = store_.list("", after, kListedAtOnce);
    for (const database::DatabaseInfo& info : page) {
      after = info.name;
      if (info.bookmark.txid.value != 0) there.insert(info.name);
    }
    if (page.size() < kListedAtOnce) break;
  }
  std::lock_guard lock(mutex_);
  std::erase_if(proofs_, [&](const auto& each) { return !there.contains(each.first); });
  for (const std::string& name : there) proofs_.try_emplace(name, Proof{.known_ms = now_ms});
}

// The one that is due, the least recently proven of them; else when the next one is.
std::optional<std::string> Prover::next(std::int64_t now_ms, std::int64_t& due_ms) {
  std::lock_guard lock(mutex_);
  const std::pair<const std::string, Proof>* found = nullptr;
  for (const auto& each : proofs_) {
    const Proof& proof = each.second;
    std::int64_t due = proof.proven_ms == 0 ? 0 : proof.proven_ms + count_ms(options_.every);
    if (proof.tried_ms != 0 && proof.tried_ms != proof.proven_ms)
      due = std::max(due, proof.tried_ms + count_ms(kAgainAfter));
    if (due > now_ms) {
      due_ms = std::min(due_ms, due);
    } else if (found == nullptr || proof.proven_ms < found->second.proven_ms) {
      found = &each;
    }
  }
  if (found == nullptr) return std::nullopt;
  return found->first;
}

void Prover::prove(const std::string& name) {
  auto parsed = parse_archived_name(name);
  VerifyOptions verify;
  verify.scratch = options_.scratch;
  verify.cancelled = &stopping_;
  verify.files = options_.files;
  const std::int64_t begin_ms = options_.wall_clock_ms();
  auto verified = parsed ? verify_archive(objects_, archive_prefix(*parsed), verify)
                         : Result<Verified>(fail(parsed.error()));
  if (stopping_) return;
  const bool is_sound = verified && verified->damage.empty();
  if (verified && !is_sound) report(name, *verified);
  // None yet: it is not put there yet.
  if (!verified && verified.error().code() != Code::kNotFound)
    log::warn("archive of database '{}' cannot be proven: {}", name, verified.error().message());
  {
    std::lock_guard lock(mutex_);
    auto found = proofs_.find(name);
    if (found == proofs_.end()) return;
    found->second.tried_ms = begin_ms;
    if (is_sound) {
      found->second.proven_ms = begin_ms;
      ++status_.proofs;
    } else if (verified) {
      found->second.proven_ms = 0;
    }
  }
  save();
}

void Prover::report(const std::string& name, const Verified& verified) {
  for (const std::string& each : verified.damage)
    log::error("the archive of database '{}' is damaged: {}", name, each);
  {
    std::lock_guard lock(mutex_);
    status_.damages += verified.damage.size();
  }
  auto repaired = repair_(name, verified.damaged_keys);
  if (!repaired) {
    log::error("the archive of database '{}' is not repaired: {}", name,
               repaired.error().message());
    return;
  }
  for (const std::string& each : *repaired)
    log::warn("the archive of database '{}' is repaired: {}", name, each);
  std::lock_guard lock(mutex_);
  ++status_.repairs;
}

// --- what is kept

Result<> Prover::load() {
  if (options_.file.empty()) return {};
  OFFPRINT_TRY_ASSIGN(bool exists, options_.files->exists(options_.file));
  if (!exists) return {};
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(*options_.files, options_.file, kFileBytesMax));
  std::istringstream lines{std::string(as_text(bytes))};
  std::string line, name;
  if (!std::getline(lines, line) || line != kFirstLine) return {};  // proven anew, then
  std::lock_guard lock(mutex_);
  for (Proof proof; lines >> name >> proof.known_ms >> proof.proven_ms;) {
    proof.tried_ms = proof.proven_ms;
    proofs_[name] = proof;
  }
  return {};
}

void Prover::save() {
  if (options_.file.empty()) return;
  std::string text = fmt::format("{}\n", kFirstLine);
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, proof] : proofs_)
      text += fmt::format("{} {} {}\n", name, proof.known_ms, proof.proven_ms);
  }
  if (Result<> written = write_file_atomically(*options_.files, options_.file, as_bytes(text));
      !written)
    log::warn("{}: {}", options_.file, written.error().message());
}

}  // namespace offprint::archive
