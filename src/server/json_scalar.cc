#include "server/json_scalar.h"

#include <string>

namespace offprint::server {

std::optional<sqlite::Value> json_scalar(simdjson::dom::element element) {
  using Type = simdjson::dom::element_type;
  switch (element.type()) {
    case Type::NULL_VALUE:
      return sqlite::Value();
    case Type::BOOL:
      return sqlite::Value(std::int64_t{element.get_bool().value_unsafe()});
    case Type::INT64:
      return sqlite::Value(element.get_int64().value_unsafe());
    case Type::UINT64:
    case Type::DOUBLE:
      return sqlite::Value(element.get_double().value_unsafe());
    case Type::STRING:
      return sqlite::Value(std::string(element.get_string().value_unsafe()));
    default:
      return std::nullopt;
  }
}

}  // namespace offprint::server
