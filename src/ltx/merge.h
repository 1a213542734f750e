#pragma once

#include <deque>
#include <queue>

#include "ltx/codec.h"

namespace offprint::ltx {

// Told of every image that a merge reads, also of those that a newer one covers: by page,
// ascending, and for one page the newest input's first.
class MergeObserver {
 public:
  virtual ~MergeObserver() = default;
  virtual void image(std::size_t input, PageNo page, ByteView content) = 0;
};

struct MergeInput {
  ByteSource* source = nullptr;
  std::string name;  // for messages; empty: the file's name by its header
};

// Reads a run of LTX files, oldest first, as one: open, next until it answers nothing, then finish.
// Nothing that was read may be believed before finish answered without an error; after an error
// nothing more may be called. The rules are those of compact() (codec.h). Memory: one Decoder for
// each input. Thread: one. Errors: as compact(); what is wrong with one file names it.
class Merge {
 public:
  Merge() = default;
  // `observer` must outlive the merge.
  explicit Merge(MergeObserver& observer) : observer_(&observer) {}

  // Reads the headers. The sources must outlive the merge.
  Result<> open(std::span<const MergeInput> inputs);
  std::size_t size() const { return inputs_.size(); }
  const Header& header(std::size_t input) const { return inputs_[input].header; }
  const Header& first() const { return inputs_.front().header; }
  const Header& last() const { return inputs_.back().header; }

  // The newest image of the next page that the last file's database has; valid until the next call.
  Result<std::optional<Decoder::Page>> next();
  // Verifies the ends of all inputs, and that each follows from the one before.
  Result<> finish();
  // After finish.
  const Trailer& trailer(std::size_t input) const { return inputs_[input].trailer; }

 private:
  struct Input {
    explicit Input(const MergeInput& from) : name(from.name), decoder(*from.source) {}

    std::string name;
    Decoder decoder;
    Header header;
    Trailer trailer{};
    Decoder::Page head{};
    // The smallest database among this input and all later ones: images of pages above it did not
    // outlive a truncation.
    std::uint32_t page_count_min = 0;
  };
  // A head waiting for its turn. The order of std::priority_queue: last comes first.
  struct Waiting {
    PageNo page;
    std::size_t input;
    bool operator<(const Waiting& other) const {
      return page != other.page ? page > other.page : input < other.input;
    }
  };

  static std::unexpected<Error> in_file(const Error& error, const Input& input);
  Result<> check_sequence() const;
  Result<> advance(std::size_t input);
  Result<> check_growth(std::uint64_t page);

  MergeObserver* observer_ = nullptr;
  std::deque<Input> inputs_;  // decoders do not move
  std::priority_queue<Waiting> waiting_;
  bool started_ = false;
  std::optional<std::size_t> shown_;  // the input whose head next() answered: not advanced yet
  PageNo last_ = 0;
  std::uint64_t grown_next_ = 0;  // the next page that growth after a truncation must have brought
};

// As compact() of codec.h, from an open merge whose next() was not called yet.
Result<Trailer> compact(Merge& merge, const CompactOptions& options, ByteSink& output);

}  // namespace offprint::ltx
