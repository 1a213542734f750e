#include "server/feeds.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <limits>

#include <fmt/format.h>

#include "feed/change_cursor.h"
#include "publication/materialiser.h"
#include "server/errors.h"
#include "server/feed_lines.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

constexpr std::size_t kFillTarget = 256 << 10;
constexpr std::size_t kPollLines = 1'000;
constexpr std::chrono::milliseconds kWaitMax{60'000};
constexpr std::chrono::milliseconds kWatermarkAfter{1'000};

struct ChangesRequest {
  std::optional<Bookmark> since;
  ChangeFormat format = ChangeFormat::kRows;
  ChangeFilter filter;
  std::optional<std::chrono::milliseconds> wait;  // of a poll: it ends
  std::size_t lines_max = std::numeric_limits<std::size_t>::max();
  bool is_events = false;
  std::string snapshot;  // snapshot_address()
};

Result<std::uint64_t> number_of(std::string_view text, std::string_view name) {
  std::uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(Code::kInvalid, fmt::format("'{}' must be a number", name));
  return number;
}

Result<ChangesRequest> read_request(const HttpRequest& request, const Address& address,
                                    bool tables_only) {
  ChangesRequest read;
  read.snapshot = snapshot_address(address);
  read.is_events = wants_events(request);
  std::string_view since = read.is_events ? request.header("Last-Event-ID") : std::string_view();
  if (since.empty()) since = address.parameter("since").value_or("");
  if (!since.empty()) {
    read.since = Bookmark::parse(since);
    if (!read.since) return fail(Code::kInvalid, fmt::format("'{}' is no bookmark", since));
  }
  std::string_view tables = address.parameter("tables").value_or("");
  while (!tables.empty()) {
    const std::size_t end = std::min(tables.find(','), tables.size());
    if (end > 0) read.filter.tables.emplace(tables.substr(0, end));
    tables.remove_prefix(std::min(end + 1, tables.size()));
  }
  const std::string_view format = address.parameter("format").value_or("json");
  if (format != "json" && format != "changeset")
    return fail(Code::kInvalid, "'format' must be json or changeset");
  read.format = tables_only             ? ChangeFormat::kTables
                : format == "changeset" ? ChangeFormat::kChangeset
                                        : ChangeFormat::kRows;
  if (auto wait = address.parameter("wait")) {
    OFFPRINT_TRY_ASSIGN(std::uint64_t ms, number_of(*wait, "wait"));
    read.wait =
        std::min(kWaitMax, std::chrono::milliseconds(std::min<std::uint64_t>(ms, 1'000'000)));
    read.lines_max = kPollLines;
  }
  if (auto limit = address.parameter("limit")) {
    OFFPRINT_TRY_ASSIGN(read.lines_max, number_of(*limit, "limit"));
    if (read.lines_max == 0) return fail(Code::kInvalid, "'limit' must be 1 or more");
  }
  return read;
}

// Calls a connection as long as there is one. Who calls owns nothing else: what ends a listener
// must not run in a callback.
class Waker {
 public:
  void set(std::shared_ptr<Client> client) {
    std::lock_guard lock(mutex_);
    client_ = std::move(client);
  }
  void wake() {
    std::shared_ptr<Client> client;
    {
      std::lock_guard lock(mutex_);
      client = client_;
    }
    if (client) client->wake();
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<Client> client_;  // guarded by mutex_
};

// A listener's connection. Worked on by its loop, but for the cursor while a helper reads.
class Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(Service& service, ChangesRequest request, std::shared_ptr<feed::ChangeCursor> cursor,
           std::shared_ptr<Waker> waker, std::unique_ptr<database::Subscription> subscription)
      : service_(service),
        request_(std::move(request)),
        frame_(request_.is_events),
        writer_(make_change_writer(request_.format, request_.filter, frame_)),
        cursor_(std::move(cursor)),
        waker_(std::move(waker)),
        subscription_(std::move(subscription)) {}

  void begin(std::optional<feed::ChangeCursor::State> first) { state_ = first; }
  void attach(std::shared_ptr<Client> client) {
    waker_->set(std::move(client));
    last_line_ = SteadyClock::now();
    if (!request_.wait) return;
    ends_ = last_line_ + *request_.wait;
    cursor_->feed().shared().timers.at(ends_, [waker = waker_] { waker->wake(); });
  }
  void detach() { waker_->set(nullptr); }

  BodyStream::State fill(std::string& to) {
    const std::size_t begin = to.size();
    while (to.size() < begin + kFillTarget) {
      if (in_transaction_) {
        auto transaction = cursor_->take();
        if (!transaction) return too_slow(to);
        if (!writer_->append(to, *transaction, begin + kFillTarget)) break;
        in_transaction_ = false;
        note_line();
        continue;
      }
      if (lines_ >= request_.lines_max) return finish(to);
      if (helper_runs_.load(std::memory_order_acquire)) return waiting(to, begin);
      auto state = std::exchange(state_, std::nullopt).value_or(feed::ChangeCursor::State::kIdle);
      if (state == feed::ChangeCursor::State::kIdle) state = cursor_->next(false);
      switch (state) {
        case feed::ChangeCursor::State::kTransaction: {
          auto transaction = cursor_->take();
          if (!transaction) return too_slow(to);
          in_transaction_ = writer_->begin(to, *transaction);
          if (!in_transaction_) skipped_ = true;
          break;
        }
        case feed::ChangeCursor::State::kNeedsHelper:
          start_helper();
          return waiting(to, begin);
        case feed::ChangeCursor::State::kEnded:
          return end_by(to, cursor_->error());
        case feed::ChangeCursor::State::kIdle:
          return idle(to, begin);
      }
    }
    return BodyStream::State::kMore;
  }
  void stop(std::string& to) {
    if (in_transaction_ || helper_runs_) return;
    frame_.watermark(to, cursor_->position());
  }

 private:
  void note_line() {
    ++lines_;
    skipped_ = false;
    last_line_ = SteadyClock::now();
  }

  BodyStream::State waiting(const std::string& to, std::size_t begin) const {
    return to.size() == begin ? BodyStream::State::kWait : BodyStream::State::kMore;
  }

  BodyStream::State idle(std::string& to, std::size_t begin) {
    const auto now = SteadyClock::now();
    if (request_.wait && (lines_ > 0 || now >= ends_)) return finish(to);
    const auto patience = skipped_ ? std::chrono::milliseconds(kWatermarkAfter)
                                   : std::chrono::milliseconds(kFeedHeartbeat);
    if (!request_.wait && (is_first_ || now - last_line_ >= patience)) {
      is_first_ = false;
      frame_.watermark(to, cursor_->position());
      skipped_ = false;
      last_line_ = now;
    }
    return waiting(to, begin);
  }

  // A poll has been answered.
  BodyStream::State finish(std::string& to) {
    frame_.watermark(to, cursor_->position());
    return BodyStream::State::kEnd;
  }

  // In the middle of a line: cut, so that nobody takes it for a whole one.
  BodyStream::State too_slow(std::string& to) {
    if (in_transaction_) return BodyStream::State::kFailed;
    return end_by(to, Error(Code::kBusy, "CHANGES_TOO_SLOW: go on from the last position"));
  }

  BodyStream::State end_by(std::string& to, const Error& error) {
    const bool is_gone =
        error.code() == Code::kBehind || error.message().starts_with("HISTORY_UNAVAILABLE");
    if (is_gone) {
      frame_.error(to, Error(Code::kBehind, "CHANGES_GONE: " + error.message()),
                   feed_gone_fields(service_, cursor_->feed().name(), request_.snapshot));
    } else {
      frame_.error(to, error);
    }
    return BodyStream::State::kEnd;
  }

  void start_helper() {
    helper_runs_ = true;
    cursor_->feed().shared().catching_up.post([self = shared_from_this()] {
      self->state_ = self->cursor_->next(true);
      self->helper_runs_.store(false, std::memory_order_release);
      self->waker_->wake();
    });
  }

  Service& service_;
  const ChangesRequest request_;
  const LineFrame frame_;
  const std::unique_ptr<ChangeWriter> writer_;
  const std::shared_ptr<feed::ChangeCursor> cursor_;
  bool in_transaction_ = false, skipped_ = false, is_first_ = true;
  std::size_t lines_ = 0;
  SteadyClock::time_point last_line_{}, ends_{};
  std::optional<feed::ChangeCursor::State> state_;  // that a helper came to
  std::atomic<bool> helper_runs_{false};
  const std::shared_ptr<Waker> waker_;
  const std::unique_ptr<database::Subscription> subscription_;  // calls it
};

class ChangesStream final : public BodyStream {
 public:
  explicit ChangesStream(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}
  ~ChangesStream() override { listener_->detach(); }
  void start(std::shared_ptr<Client> client) override { listener_->attach(std::move(client)); }
  void stop() override { stopping_ = true; }
  State fill(std::string& to) override {
    if (!stopping_) return listener_->fill(to);
    listener_->stop(to);
    return State::kEnd;
  }

 private:
  const std::shared_ptr<Listener> listener_;
  bool stopping_ = false;
};

Result<Response> open_changes(Service& service, const database::DatabaseName& name,
                              ChangesRequest request) {
  OFFPRINT_TRY_ASSIGN(auto feed, service.feeds.open(name));
  bool is_gone = false;
  if (request.since) {
    if (auto checked = check_since(service, name, *request.since, is_gone); !checked) {
      if (is_gone) return feed_gone(service, name, request.snapshot, checked.error());
      return fail(std::move(checked).error());
    }
  }
  auto waker = std::make_shared<Waker>();
  auto subscription = feed->listen(true, [waker] { waker->wake(); });
  const Bookmark since = request.since.value_or(feed->position());
  auto cursor = std::make_shared<feed::ChangeCursor>(feed, since);
  feed->add_cursor(cursor);
  // What cannot be read is refused now, with a status.
  const auto first = cursor->next(true);
  if (first == feed::ChangeCursor::State::kEnded) {
    const Error& error = cursor->error();
    if (error.code() == Code::kBehind || error.message().starts_with("HISTORY_UNAVAILABLE"))
      return feed_gone(service, name, request.snapshot, error);
    return fail(error);
  }
  const bool is_events = request.is_events;
  auto listener = std::make_shared<Listener>(service, std::move(request), cursor, waker,
                                             std::move(subscription));
  listener->begin(first);
  return feed_response(service, name, since, is_events,
                       std::make_unique<ChangesStream>(std::move(listener)));
}

}  // namespace

bool wants_events(const HttpRequest& request) {
  return request.header("Accept").find("text/event-stream") != std::string_view::npos;
}

std::string snapshot_address(const Address& address) {
  constexpr std::array<std::string_view, 5> kOwn = {"since", "tables", "format", "wait", "limit"};
  std::string text;
  for (std::size_t i = 0; i + 1 < address.segments.size(); ++i) text += "/" + address.segments[i];
  text += "/snapshot";
  char sign = '?';
  for (const auto& [name, value] : address.parameters) {
    if (std::ranges::find(kOwn, name) != kOwn.end()) continue;
    text +=
        std::exchange(sign, '&') + publication::encoded(name) + '=' + publication::encoded(value);
  }
  return text;
}

std::string feed_gone_fields(Service& service, const database::DatabaseName& name,
                             std::string_view snapshot) {
  std::string fields;
  auto entries =
      service.store.log_before(name, std::nullopt, std::numeric_limits<std::size_t>::max());
  auto position = service.store.position(name);
  if (entries && position && !entries->empty()) {
    const database::LogEntry& oldest = entries->back();
    fields += fmt::format(R"(,"oldest":"{}")",
                          Bookmark{oldest.epoch, oldest.txid, position->lineage}.text());
  }
  fields += R"(,"snapshot":)";
  append_json_string(fields, snapshot);
  return fields;
}

Response feed_gone(Service& service, const database::DatabaseName& name, std::string_view snapshot,
                   const Error& why) {
  Response response;
  response.status = 410;
  response.body = R"({"error":{"code":"CHANGES_GONE","extended_code":"CHANGES_GONE","message":)";
  append_json_string(response.body, why.message());
  response.body += '}' + feed_gone_fields(service, name, snapshot) + "}\n";
  return response;
}

Result<> check_since(Service& service, const database::DatabaseName& name, const Bookmark& since,
                     bool& is_gone) {
  OFFPRINT_TRY_ASSIGN(Position now, service.store.position(name));
  auto known = service.store.log_after(name, since, 1);
  if (known) return {};
  const bool is_ahead = since.lineage == now.lineage && since.txid > now.txid;
  is_gone = !(is_ahead && service.has_copies()) && known.error().code() == Code::kBehind;
  return fail(std::move(known).error());
}

Response feed_response(Service& service, const database::DatabaseName& name, const Bookmark& at,
                       bool is_events, std::unique_ptr<BodyStream> stream) {
  Response response;
  response.content_type = is_events ? "text/event-stream" : "application/x-ndjson";
  response.headers = "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n";
  response.headers += answer_headers(service, name, at);
  response.stream = std::move(stream);
  return response;
}

void handle_changes(Service& service, const database::DatabaseName& name,
                    const HttpRequest& request, const Address& address, bool tables_only,
                    Responder responder) {
  auto read = read_request(request, address, tables_only);
  if (!read) return responder.respond(structured_error(read.error()));
  auto kept = std::make_shared<Responder>(std::move(responder));
  auto wanted = std::make_shared<ChangesRequest>(*std::move(read));
  service.feeds.shared().catching_up.post([&service, name, kept, wanted] {
    auto response = open_changes(service, name, std::move(*wanted));
    kept->respond(response ? *std::move(response) : structured_error(response.error()));
  });
}

}  // namespace offprint::server
