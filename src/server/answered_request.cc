#include "server/answered_request.h"

#include <algorithm>
#include <array>

#include "archive/s3_signature.h"
#include "base/bytes.h"

namespace offprint::server {
namespace {

constexpr std::string_view kIdempotencyKey = "Idempotency-Key";
constexpr std::size_t kKeyMax = 255;  // bytes

// Of the answers that can be kept: a whole body, of one of these types.
constexpr std::array<std::string_view, 2> kTypes = {"application/json", "text/plain"};

// docs/format/request-keys.md
constexpr std::uint8_t kFormat = 1;
constexpr std::size_t kHeadSize = 8;

std::string encode(const Response& response, std::size_t type) {
  std::string kept(kHeadSize, '\0');
  auto* head = reinterpret_cast<std::uint8_t*>(kept.data());
  head[0] = kFormat;
  head[1] = static_cast<std::uint8_t>(type);
  store_be<std::uint16_t>(head + 2, static_cast<std::uint16_t>(response.status));
  store_be<std::uint32_t>(head + 4, static_cast<std::uint32_t>(response.headers.size()));
  return kept + response.headers + response.body;
}

Result<Response> decode(std::string_view kept) {
  const Error damaged(Code::kCorrupt, "the answer that was kept of this request is damaged");
  if (kept.size() < kHeadSize) return fail(damaged);
  const auto* head = reinterpret_cast<const std::uint8_t*>(kept.data());
  if (head[0] != kFormat) {
    return fail(Code::kUnavailable,
                "the answer that was kept of this request was written by a newer version");
  }
  const auto headers = load_be<std::uint32_t>(head + 4);
  if (head[1] >= kTypes.size() || headers > kept.size() - kHeadSize) return fail(damaged);
  Response response;
  response.content_type = kTypes[head[1]];
  response.status = load_be<std::uint16_t>(head + 2);
  response.headers = kept.substr(kHeadSize, headers);
  response.body = kept.substr(kHeadSize + headers);
  return response;
}

Error not_kept(const Bookmark& bookmark) {
  return Error(Code::kConflict,
               "RESULT_NOT_KEPT: this request was committed before, with the bookmark " +
                   bookmark.text() + "; its result was too large to be kept");
}

}  // namespace

Result<std::optional<database::RequestKey>> request_key(const HttpRequest& request) {
  const std::string_view text = request.header(kIdempotencyKey);
  const bool is_given = std::ranges::any_of(request.headers, [](const auto& field) {
    return equal_ignoring_case(field.first, kIdempotencyKey);
  });
  if (!is_given) return std::nullopt;
  const bool is_key = !text.empty() && text.size() <= kKeyMax &&
                      std::ranges::all_of(text, [](char c) { return c >= '!' && c <= '~'; });
  if (!is_key) {
    return fail(Code::kInvalid,
                "an Idempotency-Key has 1 to 255 printable ASCII characters and no blank");
  }
  // The last part of the path is what it is for; the same database can have several addresses.
  std::string_view path = request.target.substr(0, request.target.find('?'));
  while (path.ends_with('/')) path.remove_suffix(1);
  std::string content(path.substr(path.rfind('/') + 1));
  content += '\n';
  content += request.body;
  database::RequestKey key;
  key.key = text;
  key.content = as_text(archive::sha256(as_bytes(content)));
  return key;
}

void AnsweredRequest::done(database::Outcome outcome) {
  const bool is_committed = outcome.state == database::Outcome::State::kCommitted;
  if (is_committed && refusal_) {
    outcome.state = database::Outcome::State::kRejected;
    outcome.error = std::move(refusal_);
  } else if (is_committed && made_) {
    return responder_.respond(*std::move(made_));
  }
  const bool is_unknown = outcome.state == database::Outcome::State::kUnknown;
  Response response = make_answer(std::move(outcome));
  // Whoever is primary now can say what became of it, or do it.
  response.may_be_done = is_unknown && key;
  response.for_primary |= response.may_be_done;
  responder_.respond(std::move(response));
}

std::optional<std::string> AnsweredRequest::answer_to_keep(const database::Outcome& outcome) {
  made_ = make_answer(outcome);
  const auto type = std::ranges::find(kTypes, made_->content_type);
  if (made_->stream || type == kTypes.end()) return std::nullopt;
  return encode(*made_, static_cast<std::size_t>(type - kTypes.begin()));
}

void AnsweredRequest::recall(Result<database::KeptOutcome> before) {
  made_.reset();
  refusal_.reset();
  if (!before) {
    refusal_ = std::move(before).error();
  } else if (!before->answer) {
    refusal_ = not_kept(before->bookmark);
  } else if (auto answer = decode(*before->answer)) {
    made_ = *std::move(answer);
  } else {
    refusal_ = std::move(answer).error();
  }
}

}  // namespace offprint::server
