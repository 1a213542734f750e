#include "replica/database_url.h"

#include <algorithm>

namespace offprint::replica {

Result<std::string> normalize_url(const std::string& url) {
  std::size_t host = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  if (host == 0 || host == url.size()) {
    return fail(Code::kInvalid,
                "not the URL of a database: " + url + " (http://HOST:PORT/db/NAME)");
  }
  std::string_view authority = std::string_view(url).substr(host, url.find('/', host) - host);
  if (authority.find('@') != std::string_view::npos) {
    return fail(Code::kInvalid, "a URL takes no user or password: use --token or OFFPRINT_TOKEN");
  }
  const std::size_t query = std::min(url.find('?'), url.size());
  const bool is_publication = url.substr(0, query).find("/pub/") != std::string::npos;
  if (url.find_first_of("# \r\n\t") != std::string::npos || (query < url.size() && !is_publication))
    return fail(Code::kInvalid, "the URL of a database has no query and no spaces: " + url);
  std::string result = url.substr(0, query);
  while (result.ends_with('/')) result.pop_back();
  return result + url.substr(query);
}

std::string address_below(const std::string& url, std::string_view action,
                          std::string_view parameter) {
  const std::size_t query = std::min(url.find('?'), url.size());
  std::string address = url.substr(0, query) + std::string(action) + url.substr(query);
  if (!parameter.empty()) address += (query < url.size() ? "&" : "?") + std::string(parameter);
  return address;
}

}  // namespace offprint::replica
