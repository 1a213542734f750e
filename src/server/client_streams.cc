#include "server/client_streams.h"

#include <algorithm>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"
#include "base/random.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

constexpr std::size_t kHeadSize = 13;  // kind, stream id, sequence
constexpr std::size_t kTagSize = 16;   // of the HMAC-SHA256

std::array<std::uint8_t, kTagSize> tag_of(const StreamKey& key, ByteView head,
                                          std::string_view database) {
  Bytes text(head.begin(), head.end());
  append(text, as_bytes(database));
  std::uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  auto* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), text.data(),
                    text.size(), digest, &size);
  OFFPRINT_ASSERT(done != nullptr && size >= kTagSize);
  std::array<std::uint8_t, kTagSize> tag;
  std::copy_n(digest, kTagSize, tag.begin());
  return tag;
}

std::size_t stored_size(const hrana::StoredSql& stored) {
  std::size_t size = 0;
  for (const auto& [id, text] : stored) size += text.size() + 64;
  return size;
}

std::uint64_t new_stream_id() {
  std::array<std::uint8_t, 8> raw;
  fill_random(raw);
  return load_be<std::uint64_t>(raw.data()) | 1;  // never 0
}

}  // namespace

Result<StreamKey> load_stream_key(FileSystem& files, const std::string& path) {
  StreamKey key;
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path));
  if (!exists) {
    fill_random(key);
    OFFPRINT_TRY(write_file_atomically(files, path, key));
    return key;
  }
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, 1024));
  if (bytes.size() != key.size())
    return fail(Code::kCorrupt, path + ": must be " + std::to_string(key.size()) + " bytes");
  std::copy(bytes.begin(), bytes.end(), key.begin());
  return key;
}

StreamKey ClientStreams::derived_key(std::string_view purpose) const {
  StreamKey derived;
  unsigned size = 0;
  auto* done = HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
                    as_bytes(purpose).data(), purpose.size(), derived.data(), &size);
  OFFPRINT_ASSERT(done != nullptr && size == derived.size());
  return derived;
}

std::string ClientStreams::sign(Kind kind, std::uint64_t id, std::uint32_t sequence,
                                std::string_view database) const {
  Bytes raw(kHeadSize);
  raw[0] = static_cast<std::uint8_t>(kind);
  store_be<std::uint64_t>(raw.data() + 1, id);
  store_be<std::uint32_t>(raw.data() + 9, sequence);
  auto tag = tag_of(key_, raw, database);
  raw.insert(raw.end(), tag.begin(), tag.end());
  std::string text;
  append_base64(text, raw);
  return text;
}

Result<ClientStreams::Stream> ClientStreams::take(std::string_view baton,
                                                  std::string_view database) {
  Bytes raw;
  if (baton.size() > 64 || !decode_base64(baton, raw) || raw.size() != kHeadSize + kTagSize) {
    return fail(Code::kInvalid, "Received an invalid baton");
  }
  auto tag = tag_of(key_, ByteView(raw).first(kHeadSize), database);
  if (CRYPTO_memcmp(tag.data(), raw.data() + kHeadSize, kTagSize) != 0) {
    return fail(Code::kInvalid, "Received an invalid baton");
  }
  Kind kind{raw[0]};
  Stream stream;
  stream.id = load_be<std::uint64_t>(raw.data() + 1);
  stream.sequence = load_be<std::uint32_t>(raw.data() + 9);
  if (kind == Kind::kStateless) return stream;
  std::lock_guard lock(mutex_);
  auto found = pinned_.find(stream.id);
  if (found == pinned_.end()) {
    if (kind == Kind::kInTransaction) {
      return fail(Code::kNotFound,
                  "TRANSACTION_TIMEOUT: the stream's transaction was rolled back: it was idle for "
                  "too long, its baton "
                  "was used before, or the server was restarted");
    }
    return fail(Code::kNotFound,
                "STREAM_EXPIRED: the stream was idle for too long, or the server was restarted");
  }
  if (found->second.sequence != stream.sequence)
    return fail(Code::kInvalid, "The baton has already been used");
  stream.state = std::move(found->second.state);
  forget(found);
  return stream;
}

Result<std::string> ClientStreams::put(Stream& stream, std::string_view database) {
  if (stream.id == 0) stream.id = new_stream_id();
  if (stream.state.empty()) return sign(Kind::kStateless, stream.id, stream.sequence, database);
  Kind kind = stream.state.held ? Kind::kInTransaction : Kind::kPinned;
  std::size_t size = stored_size(stream.state.stored);
  std::lock_guard lock(mutex_);
  if (pinned_.contains(
          stream.id)) {  // two requests with copies of one stateless baton: the second one loses
    return fail(Code::kInvalid, "The baton has already been used");
  }
  if (pinned_.size() >= options_.pinned_max || stored_bytes_ + size > options_.stored_bytes_max) {
    return fail(Code::kBusy,
                "TRANSACTION_BUSY: too many streams with open transactions or stored SQL");
  }
  ++stream.sequence;
  Entry entry;
  entry.sequence = stream.sequence;
  entry.state = std::move(stream.state);
  entry.stored_bytes = size;
  entry.expires = SteadyClock::now() + std::chrono::milliseconds(options_.idle_ms);
  entry.order = order_.insert(order_.end(), stream.id);
  stored_bytes_ += size;
  pinned_.emplace(stream.id, std::move(entry));
  pinned_count_.store(pinned_.size(), std::memory_order_relaxed);
  return sign(kind, stream.id, stream.sequence, database);
}

void ClientStreams::forget(std::unordered_map<std::uint64_t, Entry>::iterator entry) {
  stored_bytes_ -= entry->second.stored_bytes;
  order_.erase(entry->second.order);
  pinned_.erase(entry);
  pinned_count_.store(pinned_.size(), std::memory_order_relaxed);
}

std::vector<std::shared_ptr<database::HeldTransaction>> ClientStreams::expire(Deadline now) {
  std::vector<std::shared_ptr<database::HeldTransaction>> released;
  if (pinned_count() == 0) return released;
  std::lock_guard lock(mutex_);
  while (!order_.empty()) {
    auto oldest = pinned_.find(order_.front());
    if (oldest->second.expires > now) break;
    if (oldest->second.state.held) released.push_back(std::move(oldest->second.state.held));
    forget(oldest);
  }
  return released;
}

}  // namespace offprint::server
