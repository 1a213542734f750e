#pragma once

#include <lz4.h>
#include <lz4frame.h>

#include <array>
#include <optional>
#include <vector>

#include "ltx/codec.h"

// A second, naive LTX writer for tests: it follows docs/format/ltx.md by itself, checks nothing,
// and puts right checksums on whatever it is told to write, so that a refusal is for the rule under
// test alone.
namespace offprint::ltx::reference {

// CRC-64/GO-ISO, byte by byte from a table that is made bit by bit.
inline std::uint64_t crc64(ByteView bytes) {
  static const auto table = [] {
    std::array<std::uint64_t, 256> made{};
    for (std::uint64_t byte = 0; byte < 256; ++byte) {
      std::uint64_t state = byte;
      for (int bit = 0; bit < 8; ++bit)
        state = (state & 1) != 0 ? (state >> 1) ^ 0xd800000000000000 : state >> 1;
      made[byte] = state;
    }
    return made;
  }();
  std::uint64_t state = ~std::uint64_t{0};
  for (std::uint8_t byte : bytes) state = (state >> 8) ^ table[(state ^ byte) & 0xff];
  return ~state;
}

inline std::uint64_t page_crc(PageNo number, ByteView content) {
  Bytes all;
  append_be<std::uint32_t>(all, number);
  append(all, content);
  return std::uint64_t{1} << 63 | crc64(all);
}

struct Frame {
  PageNo number = 0;
  std::uint16_t flags = 0;
  std::optional<std::uint32_t> size;  // the size field, where there is one
  Bytes payload;                      // as stored
  Bytes content;                      // as hashed
};

inline Bytes lz4_block(ByteView content) {
  Bytes block(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(content.size()))));
  const int size = LZ4_compress_default(
      reinterpret_cast<const char*>(content.data()), reinterpret_cast<char*>(block.data()),
      static_cast<int>(content.size()), static_cast<int>(block.size()));
  block.resize(static_cast<std::size_t>(size));
  return block;
}

inline Frame block_frame(PageNo number, ByteView content) {
  Bytes block = lz4_block(content);
  const auto size = static_cast<std::uint32_t>(block.size());
  return {number, 1, size, std::move(block), Bytes(content.begin(), content.end())};
}

// What ltx 0.5.0 writes: 64 KiB blocks, content checksum.
inline LZ4F_preferences_t usual_frame() {
  LZ4F_preferences_t preferences{};
  preferences.frameInfo.blockSizeID = LZ4F_max64KB;
  preferences.frameInfo.blockMode = LZ4F_blockIndependent;
  preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  return preferences;
}

inline Frame lz4_frame(PageNo number, ByteView content,
                       const LZ4F_preferences_t& preferences = usual_frame()) {
  Bytes payload(LZ4F_compressFrameBound(content.size(), &preferences));
  payload.resize(LZ4F_compressFrame(payload.data(), payload.size(), content.data(), content.size(),
                                    &preferences));
  return {number, 0, std::nullopt, std::move(payload), Bytes(content.begin(), content.end())};
}

struct File {
  Header header;
  std::vector<Frame> frames;
  std::uint64_t post_apply = 0;
  std::optional<Bytes> index;                 // instead of the right one; without the length
  std::optional<std::uint64_t> index_length;  // instead of the right one

  static Bytes header_bytes(const Header& header) {
    Bytes raw = {'L', 'T', 'X', '1'};
    append_be<std::uint32_t>(raw, header.flags);
    append_be<std::uint32_t>(raw, header.page_size);
    append_be<std::uint32_t>(raw, header.page_count);
    append_be<std::uint64_t>(raw, header.min_txid.value);
    append_be<std::uint64_t>(raw, header.max_txid.value);
    append_be<std::uint64_t>(raw, static_cast<std::uint64_t>(header.timestamp_ms));
    append_be<std::uint64_t>(raw, header.pre_apply.value);
    append_be<std::uint64_t>(raw, static_cast<std::uint64_t>(header.wal_offset));
    append_be<std::uint64_t>(raw, static_cast<std::uint64_t>(header.wal_size));
    append_be<std::uint32_t>(raw, header.wal_salt1);
    append_be<std::uint32_t>(raw, header.wal_salt2);
    append_be<std::uint64_t>(raw, header.node_id);
    raw.resize(100);
    return raw;
  }

  static void append_varint(Bytes& to, std::uint64_t value) {
    for (; value > 0x7f; value >>= 7)
      to.push_back(static_cast<std::uint8_t>((value & 0x7f) + 0x80));
    to.push_back(static_cast<std::uint8_t>(value));
  }

  Bytes bytes() const {
    Bytes file = header_bytes(header);
    Bytes hashed = file;
    Bytes right_index;
    for (const Frame& frame : frames) {
      const std::size_t offset = file.size();
      Bytes prefix;
      append_be<std::uint32_t>(prefix, frame.number);
      append_be<std::uint16_t>(prefix, frame.flags);
      if (frame.size) append_be<std::uint32_t>(prefix, *frame.size);
      append(file, prefix);
      append(file, frame.payload);
      append(hashed, prefix);
      append(hashed, frame.content);
      append_varint(right_index, frame.number);
      append_varint(right_index, offset);
      append_varint(right_index, file.size() - offset);
    }
    right_index.push_back(0);
    Bytes tail(6);
    append(tail, index.value_or(right_index));
    append_be<std::uint64_t>(tail, index_length.value_or(index.value_or(right_index).size()));
    append_be<std::uint64_t>(tail, post_apply);
    append(file, tail);
    append(hashed, tail);
    append_be<std::uint64_t>(file, std::uint64_t{1} << 63 | crc64(hashed));
    return file;
  }
};

}  // namespace offprint::ltx::reference
