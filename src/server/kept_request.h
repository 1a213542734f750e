#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/http_message.h"

namespace offprint::server {

// A request that outlives its connection's parser.
struct KeptRequest {
  explicit KeptRequest(HttpRequest& from) : request(std::move(from)), target(request.target) {
    fields.reserve(request.headers.size());
    for (auto& [name, value] : request.headers) {
      auto& [own_name, own_value] = fields.emplace_back(name, value);
      name = own_name;
      value = own_value;
    }
    request.target = target;
  }
  HttpRequest request;
  std::string target;
  std::vector<std::pair<std::string, std::string>> fields;
};

}  // namespace offprint::server
