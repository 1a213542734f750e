#include "archive/s3_settings.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>

#include <fmt/format.h>

namespace offprint::archive {
namespace {

constexpr std::string_view kScheme = "s3://";
constexpr std::uint64_t kFileBytesMax = 1 << 20;

using Section = std::map<std::string, std::string>;
using Sections = std::map<std::string, Section>;

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return result;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\r").contains(text.front())) text.remove_prefix(1);
  while (!text.empty() && std::string_view(" \t\r").contains(text.back())) text.remove_suffix(1);
  return text;
}

bool only(std::string_view text, std::string_view others) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           others.contains(c);
  });
}

std::unexpected<Error> invalid(std::string_view what, std::string_view value,
                               std::string_view why) {
  return fail(Code::kInvalid, fmt::format("{} '{}': {}", what, value, why));
}

// "[name]" and "key = value"; what is indented belongs to the key before and is none of ours.
Sections parse_sections(std::string_view text) {
  Sections sections;
  Section* section = nullptr;
  while (!text.empty()) {
    std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    bool indented = line.starts_with(' ') || line.starts_with('\t');
    line = trim(line);
    if (line.empty() || line.front() == '#' || line.front() == ';' || indented) continue;
    if (line.front() == '[') {
      std::size_t close = line.find(']');
      section = close == std::string_view::npos
                    ? nullptr
                    : &sections[std::string(trim(line.substr(1, close - 1)))];
      continue;
    }
    std::size_t equals = line.find('=');
    if (section == nullptr || equals == std::string_view::npos) continue;
    std::string_view value = line.substr(equals + 1);
    // A remark begins after a space.
    for (std::string_view mark : {" #", " ;"}) value = value.substr(0, value.find(mark));
    (*section)[lower(trim(line.substr(0, equals)))] = std::string(trim(value));
  }
  return sections;
}

struct Profile {
  Section credentials, config;
  bool found = false;

  // The credentials file goes before the other.
  std::string of(const std::string& key) const {
    for (const Section* section : {&credentials, &config}) {
      auto it = section->find(key);
      if (it != section->end()) return it->second;
    }
    return "";
  }
};

Result<Sections> read_sections(const S3Environment& environment, const char* variable,
                               const char* name) {
  std::string path = environment.variable(variable);
  if (path.empty()) {
    std::string home = environment.variable("HOME");
    if (home.empty()) return Sections{};
    path = home + "/.aws/" + name;
  }
  OFFPRINT_TRY_ASSIGN(bool there, environment.files->exists(path));
  if (!there) return Sections{};
  OFFPRINT_TRY_ASSIGN(Bytes content, read_file(*environment.files, path, kFileBytesMax));
  return parse_sections(as_text(content));
}

Result<Profile> read_profile(const std::string& name, const S3Environment& environment) {
  OFFPRINT_TRY_ASSIGN(Sections credentials,
                      read_sections(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"));
  OFFPRINT_TRY_ASSIGN(Sections config, read_sections(environment, "AWS_CONFIG_FILE", "config"));
  Profile profile;
  std::string in_config = name == "default" && config.contains(name) ? name : "profile " + name;
  profile.found = credentials.contains(name) || config.contains(in_config);
  profile.credentials = credentials[name];
  profile.config = config[in_config];
  return profile;
}

// http[s]://host[:port][/path].
Result<> set_endpoint(S3Settings& settings, std::string_view endpoint, std::string_view from) {
  std::string_view rest = endpoint;
  std::size_t mark = rest.find("://");
  settings.scheme = lower(rest.substr(0, mark));
  if (mark == std::string_view::npos || (settings.scheme != "http" && settings.scheme != "https"))
    return invalid(from, endpoint, "an endpoint is http://HOST[:PORT] or https://HOST[:PORT]");
  rest.remove_prefix(mark + 3);
  std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string host = lower(rest.substr(0, slash));
  std::string path(rest.substr(slash));
  while (path.ends_with('/')) path.pop_back();
  // Not shown: there may be a password in it.
  if (host.contains('@'))
    return fail(Code::kInvalid, fmt::format("{}: an endpoint has no user or password", from));
  if (path.find_first_of("?#%") != std::string::npos)
    return invalid(from, endpoint, "an endpoint has no query, fragment or encoded path");
  std::string name = host, port;
  std::size_t colon = host.rfind(':');
  if (colon != std::string::npos && host.find(']', colon) == std::string::npos) {
    name = host.substr(0, colon);
    port = host.substr(colon + 1);
    bool digits =
        std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (port.empty() || port.size() > 5 || !digits || std::stoi(port) == 0 ||
        std::stoi(port) > 65535) {
      return invalid(from, endpoint, "no such port");
    }
  }
  bool bracketed = name.starts_with('[') && name.ends_with(']') &&
                   only(std::string_view(name).substr(1, name.size() - 2), ":.");
  if (!bracketed && !only(name, "-._")) return invalid(from, endpoint, "no such host name");
  bool own_port = port == (settings.scheme == "http" ? "80" : "443");
  settings.host = port.empty() || own_port ? name : name + ":" + port;
  settings.base_path = path;
  return {};
}

Result<bool> parse_flag(std::string_view name, std::string_view value) {
  if (value == "1" || value == "true") return true;
  if (value == "0" || value == "false") return false;
  return invalid(name, value, "is 0 or 1");
}

struct Parameters {
  std::string endpoint, region, profile, ca_file;
  std::optional<bool> path_style;
};

Result<Parameters> parse_parameters(std::string_view query) {
  Parameters found;
  while (!query.empty()) {
    std::size_t end = query.find('&');
    std::string_view pair = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    if (pair.empty()) continue;
    std::size_t equals = pair.find('=');
    std::string name = uri_decode(pair.substr(0, equals), false);
    std::string value =
        equals == std::string_view::npos ? "" : uri_decode(pair.substr(equals + 1), false);
    if (name == "path_style") {
      OFFPRINT_TRY_ASSIGN(found.path_style, parse_flag(name, value));
      continue;
    }
    std::string* to = name == "endpoint"  ? &found.endpoint
                      : name == "region"  ? &found.region
                      : name == "profile" ? &found.profile
                      : name == "ca_file" ? &found.ca_file
                                          : nullptr;
    if (to == nullptr) {
      return fail(Code::kInvalid,
                  fmt::format("unknown parameter '{}': there are endpoint, region, path_style, "
                              "profile and ca_file; keys belong into the environment",
                              name));
    }
    if (value.empty()) return fail(Code::kInvalid, fmt::format("{} is empty", name));
    *to = value;
  }
  return found;
}

Result<> set_place(S3Settings& settings, std::string_view place) {
  std::size_t slash = std::min(place.find('/'), place.size());
  settings.bucket = place.substr(0, slash);
  // Not shown: there may be keys in it.
  if (settings.bucket.contains('@')) {
    return fail(Code::kInvalid,
                "s3://: keys belong into the environment or ~/.aws/credentials, not into the URL");
  }
  const std::string& bucket = settings.bucket;
  if (!only(bucket, "-._") || bucket.size() > 255 || bucket.starts_with('.'))
    return invalid("bucket", bucket, "an archive is s3://BUCKET/PREFIX");
  std::string prefix = uri_decode(place.substr(slash), false);
  while (prefix.starts_with('/')) prefix.erase(0, 1);
  while (prefix.ends_with('/')) prefix.pop_back();
  settings.url = std::string(kScheme) + bucket + (prefix.empty() ? "" : "/" + prefix);
  if (!prefix.empty()) settings.prefix = prefix + "/";
  return {};
}

std::string first_of(std::initializer_list<std::string> values) {
  for (const std::string& value : values) {
    if (!value.empty()) return value;
  }
  return "";
}

// The endpoint, or AWS's own.
Result<> find_endpoint(S3Settings& settings, const Parameters& parameters, const Profile& profile,
                       const S3Environment& environment) {
  std::pair<const char*, std::string> places[] = {
      {"endpoint", parameters.endpoint},
      {"AWS_ENDPOINT_URL_S3", environment.variable("AWS_ENDPOINT_URL_S3")},
      {"AWS_ENDPOINT_URL", environment.variable("AWS_ENDPOINT_URL")},
      {"endpoint_url of the profile", profile.of("endpoint_url")}};
  for (const auto& [from, endpoint] : places) {
    if (endpoint.empty()) continue;
    settings.path_style = true;
    return set_endpoint(settings, endpoint, from);
  }
  // A certificate for one label does not cover two.
  settings.path_style = settings.bucket.contains('.');
  return {};
}

}  // namespace

S3Environment S3Environment::real() {
  return {[](const char* name) {
            const char* value = std::getenv(name);
            return std::string(value == nullptr ? "" : value);
          },
          &FileSystem::real()};
}

std::string S3Settings::request_host(std::string_view in_region) const {
  std::string own = host.empty() ? fmt::format("s3.{}.amazonaws.com", in_region) : host;
  return path_style ? own : bucket + "." + own;
}

std::string S3Settings::request_path(std::string_view key) const {
  std::string path = base_path + "/";
  if (path_style) path += bucket;
  if (path_style && !key.empty()) path += '/';
  return path.append(key);
}

Result<S3Settings> read_s3_settings(std::string_view url, const S3Environment& environment) {
  S3Settings settings;
  if (!url.starts_with(kScheme) || url.contains('#'))
    return fail(Code::kInvalid, "an archive is s3://BUCKET/PREFIX");
  std::size_t mark = std::min(url.find('?'), url.size());
  OFFPRINT_TRY(set_place(settings, url.substr(kScheme.size(), mark - kScheme.size())));
  auto all = [&]() -> Result<> {
    OFFPRINT_TRY_ASSIGN(Parameters parameters,
                        parse_parameters(mark == url.size() ? "" : url.substr(mark + 1)));
    settings.explicit_profile = !parameters.profile.empty();
    std::string named = first_of({parameters.profile, environment.variable("AWS_PROFILE")});
    settings.profile = first_of({named, "default"});
    OFFPRINT_TRY_ASSIGN(Profile profile, read_profile(settings.profile, environment));
    if (!named.empty() && !profile.found)
      return invalid("profile", named, "is in neither of the files of ~/.aws");
    OFFPRINT_TRY(find_endpoint(settings, parameters, profile, environment));
    if (parameters.path_style) settings.path_style = *parameters.path_style;
    if (!settings.path_style && settings.host.starts_with('['))
      return invalid("path_style", "0", "the endpoint is an address, which has no names below it");
    settings.region =
        first_of({parameters.region, environment.variable("AWS_REGION"),
                  environment.variable("AWS_DEFAULT_REGION"), profile.of("region"), "us-east-1"});
    if (!only(settings.region, "-")) return invalid("region", settings.region, "no such region");
    settings.ca_file = first_of(
        {parameters.ca_file, environment.variable("AWS_CA_BUNDLE"), profile.of("ca_bundle")});
    if (settings.ca_file.empty()) return {};
    OFFPRINT_TRY_ASSIGN(bool there, environment.files->exists(settings.ca_file));
    if (!there) return invalid("ca_file", settings.ca_file, "no such file");
    return {};
  }();
  if (!all) return fail(all.error().with_context(settings.url));
  return settings;
}

Result<S3Credentials> read_s3_credentials(const S3Settings& settings,
                                          const S3Environment& environment) {
  S3Credentials found;
  std::string from = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
  if (!settings.explicit_profile) {
    found = {environment.variable("AWS_ACCESS_KEY_ID"),
             environment.variable("AWS_SECRET_ACCESS_KEY"),
             environment.variable("AWS_SESSION_TOKEN")};
  }
  if (found.access_key.empty() && found.secret_key.empty()) {
    from = fmt::format("the profile '{}'", settings.profile);
    OFFPRINT_TRY_ASSIGN(Profile profile, read_profile(settings.profile, environment));
    found = {profile.of("aws_access_key_id"), profile.of("aws_secret_access_key"),
             profile.of("aws_session_token")};
  }
  auto visible = [](std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
  };
  if (!visible(found.access_key) || !visible(found.secret_key) || !visible(found.session_token))
    return fail(Code::kInvalid, fmt::format("{}: {} hold what no key has", settings.url, from));
  if (!found.access_key.empty() && !found.secret_key.empty()) return found;
  if (found.access_key.empty() != found.secret_key.empty()) {
    return fail(Code::kInvalid,
                fmt::format("{}: {}: one of the two keys is missing", settings.url, from));
  }
  return fail(
      Code::kInvalid,
      fmt::format("{}: no keys: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor the "
                  "profile '{}' of ~/.aws/credentials",
                  settings.url, settings.profile));
}

}  // namespace offprint::archive
