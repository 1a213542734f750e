#pragma once

#include <string>

#include "base/result.h"
#include "consumer/spec.h"
#include "sqlite/connection.h"

// A service's own database with live replicas beside it in one connection.
namespace offprint::consumer {

// The ATTACH statements of a spec, for any program that opens names as URIs.
std::string attach_sql(const ConsumerSpec& spec);

// The temporary views and triggers of a spec, and the view offprint_missing. `connection` has the
// replicas attached. kInvalid: what the spec names is not there, or does not fit; says what.
Result<std::string> compose_sql(sqlite::Connection& connection, const ConsumerSpec& spec);

// The views of a spec as the text of a publication of several sources, of the own database: on the
// server, kept there, with all columns for everybody. `connection` as above. kInvalid: as above, or
// no view.
Result<std::string> publication_text(sqlite::Connection& connection, const ConsumerSpec& spec,
                                     const std::string& name);

struct SessionOptions {
  bool read_only = false;  // the own database, too
  bool composed = true;    // with what compose_sql() makes
  int busy_timeout_ms = 5000;
};
// Opens the own database and attaches the replicas read-only. kNotFound: one of the files is not
// there. kInvalid: see compose_sql().
Result<sqlite::Connection> open_session(const ConsumerSpec& spec, const SessionOptions& options);

}  // namespace offprint::consumer
