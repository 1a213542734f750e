#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "feed/live_query.h"
#include "feed/transaction.h"

// What feeds say, as text: one JSON object a line, or events of Server-Sent Events.
// docs/protocol/feeds.md.
namespace offprint::server {

// 1, 1.5, "text", null; {"$i":"…"} for integers beyond 2^53, {"$r":"…"} for infinities, {"$b":"…"}
// for blobs.
void append_feed_value(std::string& to, const sqlite::Value& value);

// How lines are framed.
class LineFrame {
 public:
  explicit LineFrame(bool is_events) : is_events_(is_events) {}
  bool is_events() const { return is_events_; }
  void open(std::string& to, const Bookmark* at, std::string_view event = {}) const;
  void close(std::string& to) const { to += is_events_ ? "\n\n" : "\n"; }
  void watermark(std::string& to, const Bookmark& at) const;
  // {"error":{"code","message"}}, with further fields `more` that begin with a comma.
  void error(std::string& to, const Error& error, std::string_view more = {}) const;

 private:
  bool is_events_;
};

// How the transactions of a feed are written. Further formats (envelopes of other systems) take
// this place: they get the same transactions, row by row.
class ChangeWriter {
 public:
  virtual ~ChangeWriter() = default;
  // Begins a transaction; false: there is nothing in it for this listener.
  virtual bool begin(std::string& to, const feed::Transaction& transaction) = 0;
  // Appends until about `limit` bytes are there; true: that was all of it.
  virtual bool append(std::string& to, const feed::Transaction& transaction, std::size_t limit) = 0;
};

struct ChangeFilter {
  std::set<std::string> tables;  // empty: all
  bool wants(const feed::TableChanges& changes) const {
    return tables.empty() || (changes.before && tables.contains(changes.before->name)) ||
           (changes.after && tables.contains(changes.after->name));
  }
};

enum class ChangeFormat { kRows, kChangeset, kTables };
std::unique_ptr<ChangeWriter> make_change_writer(ChangeFormat format, ChangeFilter filter,
                                                 LineFrame frame);

// {"columns":[…]}
void append_live_columns(std::string& to, const LineFrame& frame, const feed::LiveResult& result);
// {"row":[…]}
void append_live_row(std::string& to, const LineFrame& frame, const feed::Row& row);
// {"at":"…","rows":n}
void append_live_at(std::string& to, const LineFrame& frame, const Bookmark& at, std::size_t rows);
// {"at":"…","del":[[…]],"put":[[…]],"rows":n}
void append_live_difference(std::string& to, const LineFrame& frame, const Bookmark& at,
                            const feed::LiveDifference& difference, std::size_t rows);

}  // namespace offprint::server
