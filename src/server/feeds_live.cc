// POST …/live: a query's result, and then what becomes of it.
#include <atomic>

#include "server/access.h"
#include "server/errors.h"
#include "server/feed_lines.h"
#include "server/feeds.h"
#include "server/gate.h"
#include "server/json_reader.h"
#include "server/query.h"

namespace offprint::server {
namespace {

constexpr std::size_t kFillTarget = 256 << 10;
constexpr std::size_t kKeyMax = 100;

struct LiveWish {
  feed::LiveRequest request;
  std::optional<Bookmark> since;
  bool is_events = false;
  std::string snapshot;  // snapshot_address()
};

Result<LiveWish> read_wish(HttpRequest& request) {
  LiveWish wish;
  wish.is_events = wants_events(request);
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(auto body, reader.parse_object(request.body));
  OFFPRINT_TRY_ASSIGN(auto since, json_string_field(body, "since"));
  if (since) {
    wish.since = Bookmark::parse(*since);
    if (!wish.since) return fail(Code::kInvalid, "'" + std::string(*since) + "' is no bookmark");
  }
  OFFPRINT_TRY_ASSIGN(auto key, json_array_field(body, "key"));
  if (key) {
    for (auto column : *key) {
      std::string_view name;
      if (column.get(name) != simdjson::SUCCESS || wish.request.key.size() >= kKeyMax)
        return fail(Code::kInvalid, "'key' is a list of names of columns");
      wish.request.key.emplace_back(name);
    }
  }
  OFFPRINT_TRY_ASSIGN(wish.request.statement, parse_statement_object(body));
  return wish;
}

// A listener's connection. Worked on by its loop.
class LiveListener {
 public:
  LiveListener(std::shared_ptr<feed::DatabaseFeed> feed, std::shared_ptr<feed::LiveQuery> query,
               std::shared_ptr<const feed::LiveResult> known, const Bookmark& since, bool is_events)
      : feed_(std::move(feed)),
        query_(std::move(query)),
        frame_(is_events),
        told_(std::move(known)),
        since_(since),
        is_resumed_(told_ != nullptr) {}

  BodyStream::State fill(std::string& to) {
    const std::size_t begin = to.size();
    const auto now = SteadyClock::now();
    if (!told_) {
      auto current = query_->current();
      if (current.error) return end_by(to, *current.error);
      told_ = current.result;
      since_ = current.valid_to;
      append_live_columns(to, frame_, *told_);
      in_rows_ = true;
    } else if (std::exchange(is_resumed_, false)) {
      append_live_columns(to, frame_, *told_);
    }
    if (in_rows_) {
      while (row_ < told_->in_order.size() && to.size() < begin + kFillTarget)
        append_live_row(to, frame_, *told_->in_order[row_++]);
      if (row_ < told_->in_order.size()) return BodyStream::State::kMore;
      in_rows_ = false;
      append_live_at(to, frame_, since_, told_->in_order.size());
      last_line_ = now;
      return BodyStream::State::kMore;
    }
    auto current = query_->current();
    if (current.error) return end_by(to, *current.error);
    // Resumed at a state that the feed has not come to yet.
    if (current.valid_to.txid < since_.txid) return BodyStream::State::kWait;
    if (current.result != told_) {
      auto changes = feed::difference(*told_, *current.result);
      if (told_->columns != current.result->columns)
        append_live_columns(to, frame_, *current.result);
      told_ = current.result;
      since_ = current.valid_to;
      if (!changes.empty()) {
        append_live_difference(to, frame_, since_, changes, told_->in_order.size());
        last_line_ = now;
      }
    }
    since_ = current.valid_to;
    if (now - last_line_ >= kFeedHeartbeat) {
      frame_.watermark(to, since_);
      last_line_ = now;
    }
    return to.size() == begin ? BodyStream::State::kWait : BodyStream::State::kMore;
  }

  void listen(std::shared_ptr<Client> client) {
    auto wake = [client = std::move(client)] { client->wake(); };
    ended_ = feed_->listen(false, [] {});
    changed_ = query_->listen(std::move(wake));
  }

 private:
  BodyStream::State end_by(std::string& to, const Error& error) {
    frame_.error(to, error);
    return BodyStream::State::kEnd;
  }

  const std::shared_ptr<feed::DatabaseFeed> feed_;  // goes on as long as this is here
  const std::shared_ptr<feed::LiveQuery> query_;
  const LineFrame frame_;
  std::shared_ptr<const feed::LiveResult> told_;
  Bookmark since_;  // what was told is the result of that
  bool is_resumed_, in_rows_ = false;
  std::size_t row_ = 0;
  SteadyClock::time_point last_line_ = SteadyClock::now();
  std::unique_ptr<database::Subscription> changed_, ended_;
};

class LiveStream final : public BodyStream {
 public:
  explicit LiveStream(std::unique_ptr<LiveListener> listener) : listener_(std::move(listener)) {}
  void start(std::shared_ptr<Client> client) override { listener_->listen(std::move(client)); }
  void stop() override { stopping_ = true; }
  State fill(std::string& to) override { return stopping_ ? State::kEnd : listener_->fill(to); }

 private:
  const std::unique_ptr<LiveListener> listener_;
  bool stopping_ = false;
};

// What the result was at an earlier state.
Result<std::shared_ptr<const feed::LiveResult>> result_at(Service& service,
                                                          const database::DatabaseName& name,
                                                          const feed::LiveRequest& request,
                                                          const Bookmark& at) {
  OFFPRINT_TRY_ASSIGN(auto state, service.store.snapshot_at(name, at));
  feed::LiveConnection connection([&](PageNo page) { return state->page(page); });
  OFFPRINT_TRY(connection.changed(state->page_size(), state->page_count(), true));
  feed::LiveConnection::Kept kept;
  OFFPRINT_TRY_ASSIGN(auto run, connection.run(request, kept));
  kept.reset();
  run.result->at = at;
  return std::shared_ptr<const feed::LiveResult>(std::move(run.result));
}

bool is_lost(const Error& error) {
  return error.code() == Code::kBehind || error.code() == Code::kNotFound;
}

// Answers later, or at once what is wrong.
std::optional<Response> open_live(Service& service, const database::DatabaseName& name,
                                  LiveWish wish, const std::shared_ptr<Responder>& responder) {
  auto feed = service.feeds.open(name);
  if (!feed) return structured_error(feed.error());
  std::shared_ptr<const feed::LiveResult> known;
  if (wish.since) {
    bool is_gone = false;
    if (auto checked = check_since(service, name, *wish.since, is_gone); !checked)
      return is_gone ? feed_gone(service, name, wish.snapshot, checked.error())
                     : structured_error(checked.error());
    auto old = result_at(service, name, wish.request, *wish.since);
    if (!old && is_lost(old.error())) return feed_gone(service, name, wish.snapshot, old.error());
    if (!old) return structured_error(old.error());
    known = *std::move(old);
  }
  const Bookmark since = wish.since.value_or(Bookmark());
  const bool is_events = wish.is_events;
  (*feed)->open_live(std::move(wish.request), [&service, name, feed = *feed, known, since,
                                               is_events, responder](auto query) {
    if (!query) return responder->respond(structured_error(query.error()));
    auto listener = std::make_unique<LiveListener>(feed, *query, known, since, is_events);
    responder->respond(feed_response(service, name, feed->position(), is_events,
                                     std::make_unique<LiveStream>(std::move(listener))));
  });
  return std::nullopt;
}

}  // namespace

void handle_live(Service& service, const database::DatabaseName& name, HttpRequest& request,
                 const Address& address, Responder responder) {
  auto read = read_wish(request);
  if (!read) return responder.respond(structured_error(read.error()));
  read->snapshot = snapshot_address(address);
  read->request.rights = access_of(service, request).sql_rights(name);
  auto kept = std::make_shared<Responder>(std::move(responder));
  auto wish = std::make_shared<LiveWish>(*std::move(read));
  service.feeds.shared().catching_up.post([&service, name, kept, wish] {
    if (auto response = open_live(service, name, std::move(*wish), kept))
      kept->respond(*std::move(response));
  });
}

}  // namespace offprint::server
