// Parses arbitrary bytes as a Hrana pipeline, as a /query body and as D1's queries. What was
// accepted must resolve (or be refused) without a crash, and parsing it again must give the same.
#include <cstdint>
#include <string>

#include "base/assert.h"
#include "server/d1_query.h"
#include "server/hrana.h"
#include "server/hrana_run.h"
#include "server/json_reader.h"
#include "server/query.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace offprint::server;
  std::string body(reinterpret_cast<const char*>(data), size);
  auto pipeline = hrana::parse_pipeline(body);
  OFFPRINT_ASSERT(body.size() >= size);  // long integers get a point
  if (pipeline) {
    auto again = hrana::parse_pipeline(body);
    OFFPRINT_ASSERT(again && again->requests.size() == pipeline->requests.size());
    hrana::StoredSql stored{{1, "SELECT 1"}};
    if (hrana::resolve(*pipeline, stored)) {
      OFFPRINT_ASSERT(stored.size() <= hrana::kStoredTextsMax);
      (void)pipeline->looks_read_only();
      if (!pipeline->runs_sql()) {
        hrana::AnswerText answer;
        hrana::answer_without_session(*pipeline, answer);
        OFFPRINT_ASSERT(JsonReader().parse(answer.text));
      }
    }
  }
  (void)hrana::parse_cursor(body);
  (void)hrana::parse_single(body, hrana::StreamRequest::Kind::kExecute);
  auto query = parse_query(body);
  if (query) OFFPRINT_ASSERT(query->is_array || query->statements.size() == 1);
  for (auto parse : {d1::parse_binding_queries, d1::parse_rest_queries}) {
    auto list = parse(body);
    if (list) OFFPRINT_ASSERT(list->is_array || list->queries.size() == 1);
  }
  return 0;
}
