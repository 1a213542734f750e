#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ltx/checksum.h"
#include "ltx/codec.h"
#include "replica/replica_file.h"
#include "replica/stream_format.h"
#include "replica/transaction_delta.h"
#include "sqlite/page_apply_testing.h"

// For tests only: a primary in this process, and what a server would send of it.
namespace offprint::replica::testing {

using sqlite::testing::Change;
using sqlite::testing::RandomPrimary;
using sqlite::testing::TemporaryFolder;

// A failed step of a test's own preparation.
inline void must(const Result<>& done, const char* what) {
  if (!done) throw std::runtime_error(std::string(what) + ": " + done.error().message());
}

// One transaction as it travels, and the state after it.
struct SentTransaction {
  Position position;
  Bytes ltx;
  Bytes delta;  // the same for who has the state before
  std::uint64_t content_hash = 0;
};

// A whole state, as a snapshot carries it.
struct SentState {
  Position position;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;
  std::map<std::uint32_t, Bytes> pages;
  std::uint64_t content_hash = 0;
};

class LtxPrimary {
 public:
  LtxPrimary(const std::string& path, const RandomPrimary::Options& options)
      : primary_(path, options), lineage_(Lineage::random()) {
    position_ = Position{lineage_, Epoch{1}, TxId{0}, ltx::kEmptyDatabase};
  }

  RandomPrimary& primary() { return primary_; }
  sqlite::Connection& db() { return primary_.db(); }
  const Position& position() const { return position_; }
  std::uint32_t page_count() const { return page_count_; }

  // What was done on db() since the last call, as one transaction; with nothing changed: page 1 as
  // it was.
  SentTransaction capture() {
    const std::map<std::uint32_t, Bytes> former = primary_.images();
    Change change = primary_.capture();
    if (change.pages.empty()) change.pages[1] = primary_.images().at(1);
    ltx::Header header;
    header.page_size = primary_.page_size();
    header.page_count = change.page_count;
    header.min_txid = position_.txid.next();
    header.max_txid = header.min_txid;
    header.timestamp_ms = 1'700'000'000'000;
    header.pre_apply = header.is_snapshot() ? Checksum{} : position_.checksum;
    Checksum after = position_.checksum;
    for (const auto& [page, image] : change.pages)
      toggle(after, page, ltx::page_checksum(page, image));
    while (!checksums_.empty() && checksums_.rbegin()->first > change.page_count) {
      after = ltx::toggle(after, checksums_.rbegin()->second);
      checksums_.erase(std::prev(checksums_.end()));
    }
    SentTransaction sent;
    ltx::BytesSink sink(sent.ltx);
    ltx::Encoder encoder(sink);
    must(encoder.begin(header), "begin");
    for (const auto& [page, image] : change.pages) must(encoder.page(page, image), "page");
    if (auto trailer = encoder.finish(after); !trailer)
      throw std::runtime_error(trailer.error().message());
    position_.txid = header.max_txid;
    position_.checksum = after;
    page_count_ = change.page_count;
    sent.position = position_;
    sent.delta = delta_of(header, change, former);
    sent.content_hash = sqlite::testing::content_hash(db());
    return sent;
  }

  SentTransaction random_transaction() {
    primary_.random_transaction();
    return capture();
  }

  // As of the last capture().
  SentState state() {
    return {position_, primary_.page_size(), page_count_, primary_.images(),
            sqlite::testing::content_hash(db())};
  }

 private:
  // To position_. Empty: it is too large.
  Bytes delta_of(const ltx::Header& header, const Change& change,
                 const std::map<std::uint32_t, Bytes>& former) const {
    std::vector<DeltaPage> pages;
    for (const auto& [page, image] : change.pages) {
      auto before = former.find(page);
      pages.push_back({page, before == former.end() ? ByteView() : before->second, image});
    }
    DeltaHead head{position_.epoch,   position_.txid,   header.timestamp_ms, header.page_size,
                   header.page_count, header.pre_apply, position_.checksum};
    return encode_delta(head, pages).value_or(Bytes());
  }

  void toggle(Checksum& rolling, std::uint32_t page, Checksum checksum) {
    auto [at, fresh] = checksums_.try_emplace(page, checksum);
    if (!fresh) rolling = ltx::toggle(rolling, at->second);
    rolling = ltx::toggle(rolling, checksum);
    at->second = checksum;
  }

  RandomPrimary primary_;
  Lineage lineage_;
  Position position_;
  std::uint32_t page_count_ = 0;
  std::map<std::uint32_t, Checksum> checksums_;
};

// The server's part of a resync: all pages, or those that differ from `hashes`.
inline Result<> send_snapshot(ReplicaFile& replica, const SentState& state,
                              const PageHashes* hashes) {
  bool difference =
      hashes != nullptr && !hashes->hashes.empty() && hashes->page_size == state.page_size;
  OFFPRINT_TRY(
      replica.begin_snapshot({state.position, state.page_size, state.page_count, 0, difference}));
  for (const auto& [page, image] : state.pages) {
    bool known = difference && page <= hashes->hashes.size() &&
                 hashes->hashes[page - 1] == ltx::page_checksum(page, image).value;
    if (!known) OFFPRINT_TRY(replica.put_snapshot_page(page, image));
  }
  return replica.finish_snapshot();
}

inline Result<> resync(ReplicaFile& replica, const SentState& state) {
  OFFPRINT_TRY_ASSIGN(PageHashes hashes, replica.page_hashes());
  return send_snapshot(replica, state, &hashes);
}

// Applies `count` of `sent` from `first` on, as one.
inline Result<> apply(ReplicaFile& replica, const std::vector<SentTransaction>& sent,
                      std::size_t first, std::size_t count) {
  TransactionBatch batch(*replica.position(), replica.page_size());
  for (std::size_t i = first; i < first + count; ++i) {
    OFFPRINT_TRY_ASSIGN(ltx::DecodedFile file, ltx::decode(sent[i].ltx));
    OFFPRINT_TRY(batch.add(sent[i].position.epoch, std::move(file)));
  }
  return replica.apply(batch);
}
inline Result<> apply(ReplicaFile& replica, const SentTransaction& sent) {
  return apply(replica, {sent}, 0, 1);
}

}  // namespace offprint::replica::testing
