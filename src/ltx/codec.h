#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "ltx/types.h"

// LTX v3: one transaction (or a run of them, or a whole database) as bytes. Format:
// docs/format/ltx.md.
namespace offprint::ltx {

inline constexpr std::size_t kHeaderSize = 100;
inline constexpr std::size_t kTrailerSize = 16;
inline constexpr std::uint32_t kNoChecksumFlag = 2;

struct Header {
  std::uint32_t flags = 0;
  std::uint32_t page_size = 0;  // 512 … 65536, a power of two
  std::uint32_t page_count =
      0;  // size of the database in pages after it is applied ("commit"); 0 = deleted
  TxId min_txid{};
  TxId max_txid{};
  std::int64_t timestamp_ms = 0;
  Checksum pre_apply{};  // 0 for a snapshot and when not tracked
  std::int64_t wal_offset = 0;
  std::int64_t wal_size = 0;
  std::uint32_t wal_salt1 = 0;
  std::uint32_t wal_salt2 = 0;
  std::uint64_t node_id = 0;
  bool operator==(const Header&) const = default;

  bool is_snapshot() const { return min_txid.value == 1; }
  bool tracks_checksum() const { return (flags & kNoChecksumFlag) == 0; }
  // Every rule of docs/format/ltx.md "Header"; kCorrupt with the rule that is broken.
  Result<> validate() const;
};

struct Trailer {
  Checksum post_apply;
  Checksum file;
};

// Where encoded bytes go, in order.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual Result<> write(ByteView bytes) = 0;
};
// Where bytes to decode come from, in order. Returns fewer than asked only at the end.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual Result<std::size_t> read(std::span<std::uint8_t> to) = 0;
};
// In memory.
class BytesSink final : public ByteSink {
 public:
  explicit BytesSink(Bytes& to) : to_(to) {}
  Result<> write(ByteView bytes) override {
    append(to_, bytes);
    return {};
  }

 private:
  Bytes& to_;
};
class BytesSource final : public ByteSource {
 public:
  explicit BytesSource(ByteView from) : from_(from) {}
  Result<std::size_t> read(std::span<std::uint8_t> to) override;

 private:
  ByteView from_;
};

// How pages stand in a file. Decoders of today read both; Litestream 0.5.0 to 0.5.15 reads frames
// alone.
enum class PageEncoding {
  kBlock,  // LZ4 blocks with a size before them
  kFrame,  // LZ4 frames: 9 bytes more for a page, and a checksum of each
};

// Writes one LTX file: begin, pages in ascending order, finish. The sink gets large pieces (64 KiB;
// a small transaction in one). Memory: about 80 KiB, one page's bound, and the page index (8 bytes
// a page). Begin may be called again after finish or after an error, and starts another file:
// reusing an encoder saves its allocations. Thread: one. Errors: kInvalid when a rule of the format
// is broken by the caller, and what the sink answers; after an error what the sink holds is no LTX
// file.
class Encoder {
 public:
  // `sink` must outlive the encoder.
  explicit Encoder(ByteSink& sink, PageEncoding encoding = PageEncoding::kBlock);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  Result<> begin(const Header& header);
  // `content` is one page, uncompressed; it is read before this returns.
  Result<> page(PageNo page, ByteView content);
  // Writes end mark, index and trailer. `post_apply` is 0 when not tracked; a tracked snapshot must
  // be complete and have it right.
  Result<Trailer> finish(Checksum post_apply);
  // Bytes of this file so far.
  std::uint64_t size() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Reads one LTX file, strictly: everything that docs/format/ltx.md "What a decoder refuses" lists
// is kCorrupt, never a crash. Memory: three times one page's bound whatever the bytes claim, and 8
// bytes for each page that was really there. begin, then next until it answers nothing, then
// finish; after an error nothing more may be called. Nothing that was read may be believed before
// finish answered without an error. It reads ahead: the source must end where the file ends.
// Thread: one. Errors: kCorrupt, and what the source answers.
class Decoder {
 public:
  // `source` must outlive the decoder.
  explicit Decoder(ByteSource& source);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  struct Page {
    PageNo number;
    ByteView content;  // valid until the next call
  };
  Result<Header> begin();
  Result<std::optional<Page>> next();
  // Verifies index, trailer, file checksum, completeness of a snapshot, and that nothing follows.
  Result<Trailer> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A whole LTX file in memory, decoded and verified.
struct DecodedFile {
  Header header;
  std::vector<std::pair<PageNo, Bytes>> pages;
  Trailer trailer;
};
Result<DecodedFile> decode(ByteView file);

struct CompactOptions {
  std::uint32_t flags = 0;  // the result's
  PageEncoding encoding = PageEncoding::kBlock;
  std::uint64_t node_id = 0;
  std::int64_t wal_offset = 0;
  std::uint32_t wal_salt1 = 0;
  std::uint32_t wal_salt2 = 0;
};

// Compacts a contiguous run of LTX files, oldest first, into one: the newest image of each page,
// none above the final size. Files may overlap: each begins at or before the transaction after its
// predecessor's last, and leads further. Checksums are kept unless flags say kNoChecksumFlag; then
// inputs may have them or not. Reads inputs in parallel as streams: memory is one Decoder for each
// input plus the index. After an error what `output` holds is no LTX file. Errors: kInvalid no
// inputs, a gap, another page size, or checksums asked for that the inputs lack; kCorrupt an input,
// or inputs that do not follow from each other; and what sources and sink answer.
Result<Trailer> compact(std::span<ByteSource* const> inputs, const CompactOptions& options,
                        ByteSink& output);

// "%016x-%016x.ltx", and its inverse: nothing for any other text.
std::string file_name(TxId min_txid, TxId max_txid);
std::optional<std::pair<TxId, TxId>> parse_file_name(std::string_view name);

}  // namespace offprint::ltx
