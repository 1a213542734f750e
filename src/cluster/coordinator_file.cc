#include "cluster/coordinator_file.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/text_encoding.h"
#include "cluster/coordinator_json.h"

namespace offprint::cluster {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr std::uint64_t kFileMax = 64 << 20;

std::string body_of(const RegisterTable::State& state) {
  std::string text = fmt::format("{{\"revision\":{},\"entries\":[", state.revision);
  const char* separator = "\n";
  for (const auto& [key, entry] : state.entries) {
    text += separator;
    text += "{\"key\":\"";
    append_base64(text, as_bytes(key), Base64Padding::kPadded);
    text += "\",\"version\":" + std::to_string(entry.version) + ",\"value\":\"";
    append_base64(text, as_bytes(entry.value), Base64Padding::kPadded);
    text += "\"}";
    separator = ",\n";
  }
  return text + "\n]}\n";
}

Result<RegisterTable::State> parse_body(std::string_view text) {
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(simdjson::dom::object object, json.parse(text, "its content"));
  RegisterTable::State state;
  OFFPRINT_TRY_ASSIGN(state.revision, json_integer(object, "revision"));
  auto entries = json_value(object, "entries");
  simdjson::dom::array array;
  if (!entries || entries->get(array) != simdjson::SUCCESS)
    return fail(Code::kCorrupt, "'entries' must be an array");
  for (simdjson::dom::element each : array) {
    simdjson::dom::object fields;
    if (each.get(fields) != simdjson::SUCCESS)
      return fail(Code::kCorrupt, "'entries' must hold objects");
    RegisterEntry entry;
    OFFPRINT_TRY_ASSIGN(entry.key, json_bytes(fields, "key"));
    OFFPRINT_TRY_ASSIGN(entry.value, json_bytes(fields, "value"));
    OFFPRINT_TRY_ASSIGN(entry.version, json_integer(fields, "version"));
    if (entry.key.empty() || entry.version < 1 || entry.version > state.revision ||
        state.entries.contains(entry.key)) {
      return fail(Code::kCorrupt, "an entry contradicts the rest");
    }
    std::string key = entry.key;
    state.entries.emplace(std::move(key), std::move(entry));
  }
  return state;
}

Result<RegisterTable::State> parse_file(std::string_view text) {
  std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return fail(Code::kCorrupt, "its first line has no end");
  JsonObject json;
  OFFPRINT_TRY_ASSIGN(simdjson::dom::object head,
                      json.parse(text.substr(0, end), "its first line"));
  OFFPRINT_TRY_ASSIGN(std::int64_t version, json_integer(head, "v"));
  if (version > kVersion) {
    return fail(Code::kInvalid,
                fmt::format("a newer Offprint wrote it: its version is {}, this one reads {}",
                            version, kVersion));
  }
  OFFPRINT_TRY_ASSIGN(std::string checksum, json_string(head, "crc32c"));
  std::string_view body = text.substr(end + 1);
  if (version != kVersion || checksum != fmt::format("{:08x}", crc32c(as_bytes(body))))
    return fail(Code::kCorrupt, "its checksum is wrong");
  return parse_body(body);
}

}  // namespace

Result<RegisterTable::State> load_register(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(bool present, files.exists(path));
  if (!present) return RegisterTable::State{};
  OFFPRINT_TRY_ASSIGN(Bytes content, read_file(files, path, kFileMax));
  auto state = parse_file(as_text(content));
  if (!state) return fail(state.error().with_context("the register " + path));
  return state;
}

Result<> save_register(FileSystem& files, const std::string& path,
                       const RegisterTable::State& state) {
  std::string body = body_of(state);
  std::string text =
      fmt::format("{{\"v\":{},\"crc32c\":\"{:08x}\"}}\n", kVersion, crc32c(as_bytes(body))) + body;
  return write_file_atomically(files, path, as_bytes(text));
}

}  // namespace offprint::cluster
