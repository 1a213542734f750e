#include "server/address.h"

namespace offprint::server {
namespace {

constexpr std::size_t kSegmentsMax = 16;
constexpr std::size_t kParametersMax = 1024;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Result<std::string> percent_decode(std::string_view text, bool plus_is_blank) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_blank) {
      decoded += ' ';
    } else if (text[i] != '%') {
      decoded += text[i];
    } else {
      int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0 || (high == 0 && low == 0))
        return fail(Code::kInvalid, "bad percent escape in the address");
      decoded += static_cast<char>(high << 4 | low);
      i += 2;
    }
  }
  return decoded;
}

}  // namespace

std::optional<std::string_view> Address::parameter(std::string_view name) const {
  for (const auto& [key, value] : parameters) {
    if (key == name) return value;
  }
  return std::nullopt;
}

Result<bool> Address::flag(std::string_view name, bool otherwise) const {
  auto text = parameter(name);
  if (!text) return otherwise;
  if (*text == "1" || *text == "true" || text->empty()) return true;
  if (*text == "0" || *text == "false") return false;
  return fail(Code::kInvalid, "'" + std::string(name) + "' must be 0 or 1");
}

std::string Address::path_from(std::size_t first) const {
  std::string path;
  for (std::size_t i = first; i < segments.size(); ++i) {
    if (i > first) path += '/';
    path += segments[i];
  }
  return path;
}

Result<Address> parse_address(std::string_view target) {
  Address address;
  std::string_view path = target.substr(0, target.find_first_of("?#"));
  std::string_view query = target.substr(path.size());
  if (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  while (!path.empty()) {
    std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(segment.size() + 1, path.size()));
    OFFPRINT_TRY_ASSIGN(std::string decoded, percent_decode(segment, false));
    if (address.segments.size() == kSegmentsMax)
      return fail(Code::kInvalid, "the address has too many segments");
    address.segments.push_back(std::move(decoded));
  }
  if (query.starts_with('?')) query.remove_prefix(1);
  OFFPRINT_TRY_ASSIGN(address.parameters,
                      parse_parameters(query.substr(0, query.find('#')), kParametersMax));
  return address;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_parameters(std::string_view text,
                                                                          std::size_t count_max) {
  std::vector<std::pair<std::string, std::string>> parameters;
  while (!text.empty()) {
    std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    if (pair.empty()) continue;
    std::size_t equals = pair.find('=');
    OFFPRINT_TRY_ASSIGN(std::string key, percent_decode(pair.substr(0, equals), true));
    std::string value;
    if (equals != std::string_view::npos) {
      OFFPRINT_TRY_ASSIGN(value, percent_decode(pair.substr(equals + 1), true));
    }
    if (parameters.size() == count_max) return fail(Code::kInvalid, "too many parameters");
    parameters.emplace_back(std::move(key), std::move(value));
  }
  return parameters;
}

Result<DatabaseAddress> parse_database_address(const Address& address) {
  const auto& segments = address.segments;
  if (segments.size() < 2) return fail(Code::kNotFound, "the address of a database is /db/NAME");
  if (database::is_route_word(segments[1])) {
    return fail(Code::kNotFound,
                "no database is named here; some clients drop the name when the URL that they are "
                "given does not end with a slash: /db/NAME/");
  }
  bool two = segments.size() > 2 && !database::is_route_word(segments[2]);
  std::string text = segments[1];
  if (two) text += "/" + segments[2];
  OFFPRINT_TRY_ASSIGN(auto name, database::DatabaseName::parse(text));
  return DatabaseAddress{std::move(name), address.path_from(two ? 3 : 2)};
}

}  // namespace offprint::server
