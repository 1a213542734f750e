#pragma once

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/fault_file_system.h"
#include "journal/journal.h"

namespace offprint::journal {

inline constexpr std::uint64_t kTestSegment = 64 << 10;

inline Options test_options(bool background = false) {
  Options options;
  options.segment_size = kTestSegment;
  options.background = background;
  return options;
}

// `size` bytes that no other `seed` gives.
inline Bytes test_payload(std::uint64_t seed, std::size_t size) {
  Bytes payload(size);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::size_t i = 0; i < size; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    payload[i] = static_cast<std::uint8_t>(state >> 56);
  }
  return payload;
}

inline Draft test_draft(Bytes payload, std::uint64_t database = 1) {
  Draft draft;
  draft.database_id = database;
  draft.payload = std::move(payload);
  return draft;
}

// A journal and what its visitor saw.
struct Opened {
  std::unique_ptr<Journal> journal;
  std::vector<Record> records;
};

inline Result<Opened> open_journal(FileSystem& files, const Options& options = test_options(),
                                   const std::string& directory = "data/journal") {
  Opened opened;
  auto visit = [&](const Record& record) -> Result<> {
    opened.records.push_back(record);
    return {};
  };
  auto journal = Journal::open(files, directory, options, visit);
  if (!journal) return fail(journal.error());
  opened.journal = *std::move(journal);
  return opened;
}

inline Result<Bytes> read_all(Journal& journal, const Location& location) {
  auto source = journal.open_payload(location);
  if (!source) return fail(source.error());
  Bytes content;
  Bytes part(7001);
  for (;;) {
    auto got = (*source)->read(part);
    if (!got) return fail(got.error());
    if (*got == 0) return content;
    append(content, ByteView(part).first(*got));
  }
}

// EXPECT/ASSERT for a Result, with its message.
#define OFFPRINT_ASSERT_OK(expression)                                     \
  do {                                                                     \
    const auto& offprint_checked_ = (expression);                          \
    ASSERT_TRUE(offprint_checked_) << offprint_checked_.error().message(); \
  } while (false)
#define OFFPRINT_EXPECT_CODE(expression, expected_code)                              \
  do {                                                                               \
    const auto& offprint_checked_ = (expression);                                    \
    ASSERT_FALSE(offprint_checked_);                                                 \
    EXPECT_EQ(code_name(offprint_checked_.error().code()), code_name(expected_code)) \
        << offprint_checked_.error().message();                                      \
  } while (false)

}  // namespace offprint::journal
