#pragma once

#include <string>

#include "database/session.h"
#include "server/hrana.h"

namespace offprint::server::hrana {

// Carries out the requests of a pipeline (resolved, see hrana::resolve) and appends the JSON array
// of their results to `to`. A request that fails is an error in its place and does not stop the
// others. Returns early, with an unusable text, when session.lost(). Does not change `pipeline`, so
// that it can be run again. A result that would make `to` longer than `size_max` becomes an error
// RESPONSE_TOO_LARGE.
void run_pipeline(const Pipeline& pipeline, database::Session& session, std::string& to,
                  std::size_t size_max);

// The same for a pipeline that runs no SQL, where no session is needed.
void answer_without_session(const Pipeline& pipeline, std::string& to);

// {"message":…,"code":…,"extended_code":…}; SQLite's messages get the prefix that sqld gives them.
void append_hrana_error(std::string& to, const Error& error);

}  // namespace offprint::server::hrana
