#include "cluster/etcd_messages.h"

#include <charconv>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_json.h"

namespace offprint::cluster {
namespace {

using simdjson::dom::object;

enum GrpcCode {
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kUnauthenticated = 16,
};

std::string base64_text(std::string_view bytes) {
  std::string text = "\"";
  append_base64(text, as_bytes(bytes), Base64Padding::kPadded);
  return text + '"';
}

// The first key after all those that start with `prefix`; "\0" means: to the end.
std::string range_end(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

Result<object> object_field(object from, std::string_view name) {
  auto value = json_value(from, name);
  object found;
  if (!value || value->get(found) != simdjson::SUCCESS)
    return fail(Code::kCorrupt, fmt::format("etcd's answer has no object '{}'", name));
  return found;
}

// The objects of an array; none when it is absent.
Result<std::vector<object>> objects_field(object from, std::string_view name) {
  std::vector<object> all;
  auto value = json_value(from, name);
  if (!value) return all;
  simdjson::dom::array array;
  if (value->get(array) != simdjson::SUCCESS)
    return fail(Code::kCorrupt, fmt::format("'{}' must be an array", name));
  for (simdjson::dom::element each : array) {
    object found;
    if (each.get(found) != simdjson::SUCCESS)
      return fail(Code::kCorrupt, fmt::format("'{}' must hold objects", name));
    all.push_back(found);
  }
  return all;
}

Result<EtcdHeader> parse_header(object from) {
  OFFPRINT_TRY_ASSIGN(object header, object_field(from, "header"));
  // Unsigned, over half of them above what a signed number holds.
  OFFPRINT_TRY_ASSIGN(std::string id, json_string(header, "cluster_id"));
  EtcdHeader read;
  auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), read.cluster_id);
  if (error != std::errc() || end != id.data() + id.size() || read.cluster_id == 0)
    return fail(Code::kCorrupt, "'cluster_id' must be a number");
  OFFPRINT_TRY_ASSIGN(read.revision, json_int64(header, "revision"));
  if (read.revision < 1) return fail(Code::kCorrupt, "'revision' must be at least 1");
  return read;
}

Result<EtcdEntry> parse_entry(object from) {
  EtcdEntry read;
  OFFPRINT_TRY_ASSIGN(read.entry.key, json_bytes(from, "key"));
  OFFPRINT_TRY_ASSIGN(read.entry.value, json_bytes(from, "value"));
  OFFPRINT_TRY_ASSIGN(read.entry.version, json_int64(from, "mod_revision"));
  OFFPRINT_TRY_ASSIGN(read.lease, json_int64(from, "lease"));
  if (read.entry.key.empty() || read.entry.version < 1)
    return fail(Code::kCorrupt, "etcd's answer has a key without name or version");
  return read;
}

Result<std::vector<EtcdEntry>> parse_entries(object from) {
  OFFPRINT_TRY_ASSIGN(std::vector<object> kvs, objects_field(from, "kvs"));
  std::vector<EtcdEntry> entries;
  for (object each : kvs) {
    OFFPRINT_TRY_ASSIGN(EtcdEntry entry, parse_entry(each));
    entries.push_back(std::move(entry));
  }
  return entries;
}

bool bool_field(object from, std::string_view name) {
  auto value = json_value(from, name);
  bool found = false;
  return value && value->get(found) == simdjson::SUCCESS && found;
}

constexpr std::string_view kAnswer = "etcd's answer";

}  // namespace

std::string etcd_range_request(const std::string& key) {
  return "{\"key\":" + base64_text(key) + "}";
}

std::string etcd_prefix_request(const std::string& prefix) {
  return "{\"key\":" + base64_text(prefix) + ",\"range_end\":" + base64_text(range_end(prefix)) +
         ",\"sort_order\":\"ASCEND\",\"sort_target\":\"KEY\"}";
}

std::string etcd_swap_request(const Swap& swap) {
  std::string key = base64_text(swap.key);
  return fmt::format(
      R"({{"compare":[{{"key":{0},"target":"MOD","result":"EQUAL","mod_revision":"{1}"}}],)"
      R"("success":[{{"request_put":{{"key":{0},"value":{2}}}}}],)"
      R"("failure":[{{"request_range":{{"key":{0}}}}}]}})",
      key, swap.expected_version, base64_text(swap.value));
}

std::string etcd_put_request(const std::string& key, const std::string& value, std::int64_t lease) {
  return fmt::format(R"({{"key":{},"value":{},"lease":"{}"}})", base64_text(key),
                     base64_text(value), lease);
}

std::string etcd_watch_request(const std::string& prefix) {
  return fmt::format(R"({{"create_request":{{"key":{},"range_end":{}}}}})", base64_text(prefix),
                     base64_text(range_end(prefix)));
}

std::string etcd_grant_request(std::int64_t ttl_seconds) {
  return fmt::format(R"({{"TTL":"{}","ID":"0"}})", ttl_seconds);
}

std::string etcd_keep_alive_request(std::int64_t lease) {
  return fmt::format(R"({{"ID":"{}"}})", lease);
}

std::string etcd_authenticate_request(const std::string& user, const std::string& password) {
  std::string text = "{\"name\":";
  append_json_string(text, user);
  text += ",\"password\":";
  append_json_string(text, password);
  return text + "}";
}

Result<EtcdRange> parse_etcd_range(std::string_view body) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body, kAnswer));
  EtcdRange range;
  OFFPRINT_TRY_ASSIGN(range.header, parse_header(root));
  OFFPRINT_TRY_ASSIGN(range.entries, parse_entries(root));
  return range;
}

Result<EtcdTxn> parse_etcd_txn(std::string_view body, const std::string& key) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body, kAnswer));
  EtcdTxn txn;
  OFFPRINT_TRY_ASSIGN(txn.header, parse_header(root));
  txn.succeeded = bool_field(root, "succeeded");
  OFFPRINT_TRY_ASSIGN(std::vector<object> responses, objects_field(root, "responses"));
  // One answer, of the kind that the branch asks for: else it is no answer to our request.
  if (responses.size() != 1) return fail(Code::kCorrupt, "etcd's answer has not one response");
  OFFPRINT_TRY_ASSIGN(
      object response,
      object_field(responses[0], txn.succeeded ? "response_put" : "response_range"));
  if (txn.succeeded) return txn;
  OFFPRINT_TRY_ASSIGN(std::vector<EtcdEntry> entries, parse_entries(response));
  if (entries.size() > 1 || (entries.size() == 1 && entries[0].entry.key != key))
    return fail(Code::kCorrupt, "etcd's answer is about another key");
  if (!entries.empty()) txn.current = std::move(entries[0].entry);
  return txn;
}

Result<EtcdHeader> parse_etcd_put(std::string_view body) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body, kAnswer));
  return parse_header(root);
}

Result<std::int64_t> parse_etcd_grant(std::string_view body) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body, kAnswer));
  OFFPRINT_TRY_ASSIGN(std::int64_t id, json_int64(root, "ID"));
  if (id == 0) return fail(Code::kCorrupt, "etcd's answer has no lease");
  return id;
}

Result<std::int64_t> parse_etcd_keep_alive(std::string_view body) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body.substr(0, body.find('\n')), kAnswer));
  OFFPRINT_TRY_ASSIGN(object result, object_field(root, "result"));
  return json_int64(result, "TTL");
}

Result<std::string> parse_etcd_token(std::string_view body) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(body, kAnswer));
  OFFPRINT_TRY_ASSIGN(std::string token, json_string(root, "token"));
  // It becomes a header.
  for (char c : token) {
    if (c <= ' ' || c > '~') return fail(Code::kCorrupt, "etcd's token has other characters");
  }
  if (token.empty()) return fail(Code::kCorrupt, "etcd's token is empty");
  return token;
}

Result<EtcdWatchLine> parse_etcd_watch(std::string_view text) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(object root, json.parse(text, kAnswer));
  EtcdWatchLine line;
  if (json_value(root, "error")) {
    line.ended = parse_etcd_failure(200, text).message;
    return line;
  }
  OFFPRINT_TRY_ASSIGN(object result, object_field(root, "result"));
  line.created = bool_field(result, "created");
  if (bool_field(result, "canceled")) {
    auto reason = json_string(result, "cancel_reason");
    line.ended = reason ? *reason : "canceled";
  }
  OFFPRINT_TRY_ASSIGN(std::vector<object> events, objects_field(result, "events"));
  for (object event : events) {
    OFFPRINT_TRY_ASSIGN(object kv, object_field(event, "kv"));
    OFFPRINT_TRY_ASSIGN(EtcdEntry entry, parse_entry(kv));
    auto type = json_string(event, "type");  // absent: PUT
    RegisterHint hint{entry.entry.key, entry.entry.value, entry.entry.version};
    if (type && *type == "DELETE") hint.value.reset();
    line.hints.push_back(std::move(hint));
  }
  return line;
}

EtcdFailure parse_etcd_failure(int status, std::string_view body) {
  EtcdFailure failure;
  JsonObject json;
  auto root = json.parse(body, kAnswer);
  if (!root) {
    failure.message =
        fmt::format("HTTP status {} with no answer of etcd's v3 JSON gateway", status);
    return failure;
  }
  object fields = *root;
  // A stream wraps it: {"error":{"grpc_code":…,"message":…}}.
  if (auto inner = json_value(fields, "error")) {
    object wrapped;
    if (inner->get(wrapped) == simdjson::SUCCESS) fields = wrapped;
  }
  for (const char* name : {"grpc_code", "code"}) {
    if (auto code = json_integer(fields, name)) failure.grpc_code = static_cast<int>(*code);
  }
  for (const char* name : {"error", "message"}) {
    if (auto message = json_string(fields, name)) failure.message = *message;
  }
  if (failure.message.empty()) failure.message = fmt::format("HTTP status {}", status);
  failure.is_from_etcd = failure.message.starts_with("etcdserver: ");
  return failure;
}

bool EtcdFailure::is_definite() const {
  if (!is_from_etcd) return false;  // what something in between says proves nothing
  switch (grpc_code) {
    case kInvalidArgument:
    case kPermissionDenied:
    case kResourceExhausted:  // refused before it is proposed, or when it would be applied
    case kUnimplemented:
    case kUnauthenticated:
      return true;
    default:
      return false;
  }
}

bool EtcdFailure::is_stale_token() const {
  return is_from_etcd &&
         (grpc_code == kUnauthenticated || message == "etcdserver: user name is empty" ||
          message == "etcdserver: revision of auth store is old");
}

Error EtcdFailure::error() const {
  std::string text = message.starts_with("etcd") ? message : "etcd: " + message;
  switch (grpc_code) {
    case kInvalidArgument:
      return {Code::kInvalid, text};
    case kDeadlineExceeded:
      return {Code::kTimeout, text};
    case kNotFound:
      return {Code::kNotFound, text};
    case kPermissionDenied:
      return {Code::kForbidden, text};
    case kResourceExhausted:
      return {Code::kFull, text};
    case kUnauthenticated:
      return {Code::kUnauthorized, text};
    default:
      return {Code::kUnavailable, text};
  }
}

}  // namespace offprint::cluster
