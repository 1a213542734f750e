#include "cluster/peer_wire.h"

#include <utility>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/assert.h"
#include "base/crc32c.h"

namespace offprint::cluster {
namespace {

// NOTE: on the wire; do not change the values.
enum class FrameKind : std::uint8_t {
  kHello = 1,
  kAppend = 2,
  kAck = 3,
  kNack = 4,
  kGo = 5,
  kRelease = 6,
  kProof = 7,
  kFillBegin = 8,
  kFillDatabase = 9,
  kFillPages = 10,
  kFillEnd = 11,
  kFillRefusal = 12,
  kGuardianHello = 13,
};

constexpr std::size_t kRecordHeader = 1 + 8 + 2 + 4;
constexpr std::size_t kMetadataHeader = 2 + 4;

// Begins a frame; the destructor fills in what depends on its body.
class FrameWriter {
 public:
  FrameWriter(Bytes& to, FrameKind kind) : to_(to), begin_(to.size()) {
    append_be<std::uint64_t>(to_, 0);  // length and checksum
    append_be<std::uint8_t>(to_, kPeerVersion);
    append_be<std::uint8_t>(to_, static_cast<std::uint8_t>(kind));
    append_be<std::uint16_t>(to_, 0);
  }
  FrameWriter(const FrameWriter&) = delete;
  FrameWriter& operator=(const FrameWriter&) = delete;
  ~FrameWriter() {
    std::size_t body = to_.size() - begin_ - kPeerHeaderSize;
    OFFPRINT_ASSERT(body <= kPeerBodyMax);
    store_be<std::uint32_t>(to_.data() + begin_, static_cast<std::uint32_t>(body));
    store_be<std::uint32_t>(to_.data() + begin_ + 4, crc32c(ByteView(to_).subspan(begin_ + 8)));
  }

  template <class T>
  void put(T value) {
    append_be<T>(to_, value);
  }
  void put(Lsn lsn) { put(lsn.value); }
  void put(Epoch epoch) { put(epoch.value); }
  void put(MemberId member) { put(member.value); }
  void put(Time time) { put(static_cast<std::uint64_t>(time.count())); }
  void text(std::string_view text) {
    put(static_cast<std::uint16_t>(text.size()));
    append(to_, as_bytes(text));
  }
  void bytes(ByteView bytes) {
    put(static_cast<std::uint32_t>(bytes.size()));
    append(to_, bytes);
  }

 private:
  Bytes& to_;
  const std::size_t begin_;
};

// Takes a body apart; after it ended too early everything is zero and whole() is false.
class BodyReader {
 public:
  explicit BodyReader(ByteView bytes) : bytes_(bytes) {}

  template <class T>
  T take() {
    ByteView raw = raw_bytes(sizeof(T));
    return raw.empty() ? T{} : load_be<T>(raw.data());
  }
  Lsn lsn() { return {take<std::uint64_t>()}; }
  Epoch epoch() { return {take<std::uint32_t>()}; }
  MemberId member() { return {take<std::uint64_t>()}; }
  Time time() { return Time{static_cast<std::int64_t>(take<std::uint64_t>())}; }
  std::string text() { return std::string(as_text(raw_bytes(take<std::uint16_t>()))); }
  Bytes bytes() {
    ByteView raw = raw_bytes(take<std::uint32_t>());
    return {raw.begin(), raw.end()};
  }
  bool is_whole() const { return whole_; }
  bool at_end() const { return whole_ && bytes_.empty(); }

 private:
  ByteView raw_bytes(std::size_t size) {
    whole_ &= size <= bytes_.size();
    if (!whole_) return {};
    ByteView taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  ByteView bytes_;
  bool whole_ = true;
};

std::unexpected<Error> bad_frame(const char* what) {
  return fail(Code::kCorrupt, fmt::format("a frame of another node {}", what));
}

void put_record(FrameWriter& frame, const PeerRecord& record) {
  frame.put(static_cast<std::uint8_t>(record.kind));
  frame.put(record.database_id);
  frame.put(static_cast<std::uint16_t>(record.metadata.size()));
  for (const journal::Metadata& piece : record.metadata) {
    frame.put(static_cast<std::uint16_t>(piece.type));
    frame.bytes(piece.value);
  }
  frame.bytes(record.payload);
}

PeerRecord take_record(BodyReader& body) {
  PeerRecord record;
  record.kind = static_cast<journal::Kind>(body.take<std::uint8_t>());
  record.database_id = body.take<std::uint64_t>();
  auto pieces = body.take<std::uint16_t>();
  for (std::uint16_t i = 0; i < pieces && body.is_whole(); ++i) {
    auto type = static_cast<journal::MetadataType>(body.take<std::uint16_t>());
    record.metadata.push_back({type, body.bytes()});
  }
  record.payload = body.bytes();
  return record;
}

bool is_replicated(journal::Kind kind) {
  return kind == journal::Kind::kTransaction || kind == journal::Kind::kCreate ||
         kind == journal::Kind::kDrop || kind == journal::Kind::kPart;
}

Result<PeerMessage> take_append(BodyReader& body, PeerMessage message) {
  Append append;
  append.epoch = body.epoch();
  append.sent_at = body.time();
  append.start = body.lsn();
  append.previous = body.lsn();
  append.previous_epoch = body.epoch();
  append.commit = body.lsn();
  auto runs = body.take<std::uint8_t>();
  if (runs > kRunsMax) return bad_frame("has too many runs of records");
  std::uint64_t at = append.previous.value;
  Epoch epoch = append.previous_epoch;
  std::uint64_t count = 0;
  for (std::uint8_t i = 0; i < runs; ++i) {
    EpochRun run;
    run.epoch = body.epoch();
    run.first = Lsn{at + 1};
    run.last = body.lsn();
    if (!body.is_whole() || run.last < run.first || run.epoch < epoch || run.epoch > append.epoch)
      return bad_frame("has records that do not follow on each other");
    count += run.last.value - at;
    at = run.last.value;
    epoch = run.epoch;
    append.runs.push_back(run);
  }
  if (append.previous_epoch > append.epoch) return bad_frame("is older than what it follows on");
  for (std::uint64_t i = 0; i < count && body.is_whole(); ++i) {
    message.records.push_back(take_record(body));
    if (!is_replicated(message.records.back().kind))
      return bad_frame("has a record of no use here");
  }
  message.message = append;
  return message;
}

// Nothing: a frame of another kind.
Result<std::optional<FillFrame>> take_fill(FrameKind kind, BodyReader& body) {
  switch (kind) {
    case FrameKind::kFillBegin: {
      FillBegin begin;
      begin.lsn = body.lsn();
      begin.epoch = body.epoch();
      begin.promised = body.epoch();
      return begin;
    }
    case FrameKind::kFillDatabase: {
      FillDatabase database;
      database.id = body.take<std::uint64_t>();
      database.state = body.bytes();
      return database;
    }
    case FrameKind::kFillPages:
      return FillPages{body.bytes()};
    case FrameKind::kFillEnd: {
      FillEnd end;
      const auto count = body.take<std::uint32_t>();
      for (std::uint32_t i = 0; i < count && body.is_whole(); ++i)
        end.databases.push_back(body.take<std::uint64_t>());
      return end;
    }
    case FrameKind::kFillRefusal:
      return FillRefusal{body.text()};
    default:
      return std::optional<FillFrame>();
  }
}

Result<PeerMessage> take_message(FrameKind kind, BodyReader& body) {
  PeerMessage message;
  message.group = body.take<std::uint32_t>();
  switch (kind) {
    case FrameKind::kAppend:
      return take_append(body, std::move(message));
    case FrameKind::kAck: {
      Ack ack;
      ack.epoch = body.epoch();
      ack.sent_at = body.time();
      ack.durable = body.lsn();
      message.message = ack;
      return message;
    }
    case FrameKind::kNack: {
      Nack nack;
      auto reason = body.take<std::uint8_t>();
      if (reason > static_cast<std::uint8_t>(Nack::Reason::kNoSpace))
        return bad_frame("has an unknown reason");
      nack.reason = static_cast<Nack::Reason>(reason);
      nack.epoch = body.epoch();
      nack.lsn = body.lsn();
      nack.lsn_epoch = body.epoch();
      message.message = nack;
      return message;
    }
    case FrameKind::kGo:
      message.message = Go{body.epoch()};
      return message;
    case FrameKind::kRelease: {
      Release release;
      release.primary = body.member();
      release.epoch = body.epoch();
      message.message = release;
      return message;
    }
    default:
      return bad_frame("is of an unknown kind");
  }
}

}  // namespace

std::size_t wire_size(const PeerRecord& record) {
  std::size_t size = kRecordHeader + record.payload.size();
  for (const journal::Metadata& piece : record.metadata)
    size += kMetadataHeader + piece.value.size();
  return size;
}

void append_hello(Bytes& to, const PeerHello& hello) {
  FrameWriter frame(to, hello.is_guardian ? FrameKind::kGuardianHello : FrameKind::kHello);
  frame.put(hello.version);
  frame.text(hello.cluster);
  frame.text(hello.node);
  frame.put(hello.member);
  frame.bytes(hello.nonce);
}

void append_proof(Bytes& to, const PeerProof& proof) {
  FrameWriter frame(to, FrameKind::kProof);
  frame.bytes(proof.mac);
}

Bytes proof_of(const std::string& secret, const PeerHello& sender, const PeerHello& other) {
  Bytes said;
  append_hello(said, sender);
  append(said, other.nonce);
  Bytes mac(EVP_MAX_MD_SIZE);
  unsigned size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), said.data(), said.size(),
       mac.data(), &size);
  mac.resize(size);
  return mac;
}

void append_message(Bytes& to, const PeerMessage& message) {
  if (const auto* append = std::get_if<Append>(&message.message)) {
    OFFPRINT_ASSERT(append->end().value - append->previous.value == message.records.size());
    FrameWriter frame(to, FrameKind::kAppend);
    frame.put(message.group);
    frame.put(append->epoch);
    frame.put(append->sent_at);
    frame.put(append->start);
    frame.put(append->previous);
    frame.put(append->previous_epoch);
    frame.put(append->commit);
    frame.put(static_cast<std::uint8_t>(append->runs.size()));
    for (const EpochRun& run : append->runs) {
      frame.put(run.epoch);
      frame.put(run.last);
    }
    for (const PeerRecord& record : message.records) put_record(frame, record);
  } else if (const auto* ack = std::get_if<Ack>(&message.message)) {
    FrameWriter frame(to, FrameKind::kAck);
    frame.put(message.group);
    frame.put(ack->epoch);
    frame.put(ack->sent_at);
    frame.put(ack->durable);
  } else if (const auto* nack = std::get_if<Nack>(&message.message)) {
    FrameWriter frame(to, FrameKind::kNack);
    frame.put(message.group);
    frame.put(static_cast<std::uint8_t>(nack->reason));
    frame.put(nack->epoch);
    frame.put(nack->lsn);
    frame.put(nack->lsn_epoch);
  } else if (const auto* go = std::get_if<Go>(&message.message)) {
    FrameWriter frame(to, FrameKind::kGo);
    frame.put(message.group);
    frame.put(go->epoch);
  } else {
    const auto& release = std::get<Release>(message.message);
    FrameWriter frame(to, FrameKind::kRelease);
    frame.put(message.group);
    frame.put(release.primary);
    frame.put(release.epoch);
  }
}

void append_fill(Bytes& to, const FillFrame& fill) {
  if (const auto* begin = std::get_if<FillBegin>(&fill)) {
    FrameWriter frame(to, FrameKind::kFillBegin);
    frame.put(begin->lsn);
    frame.put(begin->epoch);
    frame.put(begin->promised);
  } else if (const auto* database = std::get_if<FillDatabase>(&fill)) {
    FrameWriter frame(to, FrameKind::kFillDatabase);
    frame.put(database->id);
    frame.bytes(database->state);
  } else if (const auto* pages = std::get_if<FillPages>(&fill)) {
    FrameWriter frame(to, FrameKind::kFillPages);
    frame.bytes(pages->images);
  } else if (const auto* end = std::get_if<FillEnd>(&fill)) {
    FrameWriter frame(to, FrameKind::kFillEnd);
    frame.put(static_cast<std::uint32_t>(end->databases.size()));
    for (std::uint64_t id : end->databases) frame.put(id);
  } else {
    FrameWriter frame(to, FrameKind::kFillRefusal);
    frame.text(std::get<FillRefusal>(fill).why);
  }
}

Result<std::optional<PeerFrame>> PeerFrameReader::next() {
  ByteView bytes = ByteView(buffer_).subspan(read_);
  if (bytes.size() < kPeerHeaderSize) return std::optional<PeerFrame>();
  std::size_t size = load_be<std::uint32_t>(bytes.data());
  if (size > kPeerBodyMax) return bad_frame("claims to be larger than any is");
  auto version = bytes[8];
  if (version == 0 || version > kPeerVersion) {
    return fail(Code::kInvalid,
                fmt::format("a frame of a newer Offprint (cluster protocol {}, this "
                            "one speaks {})",
                            version, kPeerVersion));
  }
  if (bytes.size() < kPeerHeaderSize + size) return std::optional<PeerFrame>();
  ByteView frame = bytes.first(kPeerHeaderSize + size);
  if (crc32c(frame.subspan(8)) != load_be<std::uint32_t>(frame.data() + 4))
    return bad_frame("was damaged on its way");
  BodyReader body(frame.subspan(kPeerHeaderSize));
  auto kind = static_cast<FrameKind>(frame[9]);
  std::optional<PeerFrame> taken;
  if (kind == FrameKind::kHello || kind == FrameKind::kGuardianHello) {
    PeerHello hello;
    hello.is_guardian = kind == FrameKind::kGuardianHello;
    hello.version = body.take<std::uint8_t>();
    hello.cluster = body.text();
    hello.node = body.text();
    hello.member = body.member();
    hello.nonce = body.bytes();
    taken = std::move(hello);
  } else if (kind == FrameKind::kProof) {
    taken = PeerProof{body.bytes()};
  } else {
    OFFPRINT_TRY_ASSIGN(auto fill, take_fill(kind, body));
    if (fill) {
      taken = *std::move(fill);
    } else {
      OFFPRINT_TRY_ASSIGN(auto message, take_message(kind, body));
      taken = std::move(message);
    }
  }
  if (!body.at_end()) return bad_frame("has not the size that it should");
  read_ += frame.size();
  if (read_ > buffer_.size() / 2) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(read_));
    read_ = 0;
  }
  return taken;
}

}  // namespace offprint::cluster
