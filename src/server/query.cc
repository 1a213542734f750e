#include "server/query.h"

#include <cmath>

#include "database/session.h"
#include "database/sql_text.h"
#include "server/answered_request.h"
#include "server/errors.h"
#include "server/gate.h"
#include "server/ha_sql.h"
#include "server/json_reader.h"
#include "server/json_scalar.h"
#include "server/json_writer.h"
#include "server/moment.h"
#include "server/rows_json.h"

namespace offprint::server {
namespace {

namespace dom = simdjson::dom;

Result<sqlite::Value> parse_argument(dom::element element) {
  if (auto scalar = json_scalar(element)) return *std::move(scalar);
  dom::object object;
  if (element.get(object) == simdjson::SUCCESS) {
    OFFPRINT_TRY_ASSIGN(auto text, json_string_field(object, "base64"));
    Bytes bytes;
    if (text && decode_base64(*text, bytes)) return sqlite::Value(std::move(bytes));
  }
  return fail(
      Code::kInvalid,
      "ARGS_INVALID: an argument is a number, a string, true, false, null or {\"base64\":\"…\"}");
}

Result<database::SqlStatement> parse_statement(dom::element element) {
  database::SqlStatement statement;
  std::string_view text;
  if (element.get(text) == simdjson::SUCCESS) {
    statement.sql = text;
    return statement;
  }
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) {
    return fail(Code::kInvalid, "a statement is {\"sql\":\"…\",\"args\":[…]}");
  }
  return parse_statement_object(object);
}

// An array is one transaction already: what would end it is refused.
bool controls_transaction(std::string_view sql) {
  std::string_view word = database::first_word(sql);
  for (std::string_view control : {"BEGIN", "COMMIT", "END"}) {
    if (equal_ignoring_case(word, control)) return true;
  }
  if (!equal_ignoring_case(word, "ROLLBACK")) return false;
  std::string_view rest = database::skip_blanks(sql).substr(word.size());
  std::string_view next = database::first_word(rest);
  if (equal_ignoring_case(next, "TRANSACTION")) {
    next = database::first_word(database::skip_blanks(rest).substr(next.size()));
  }
  return !equal_ignoring_case(next, "TO");
}

class QueryRequest final : public AnsweredRequest {
 public:
  QueryRequest(Service& service, const database::DatabaseName& name, Query query,
               Responder responder)
      : AnsweredRequest(service, name, std::move(responder)), query_(std::move(query)) {
    for (const auto& statement : query_.statements)
      read_only_ &= database::looks_read_only(statement.sql);
  }

  void run(database::Session& session) override {
    body_ = "{\"results\":[";
    failure_.reset();
    if (query_.is_array) {
      run_transaction(session);
    } else {
      run_statement(session, 0);
    }
  }

  bool likely_read_only() const override { return read_only_; }

 private:
  Response make_answer(database::Outcome outcome) override {
    if (outcome.state != database::Outcome::State::kCommitted) {
      failure_ = outcome.error.value_or(Error(Code::kInternal, "rejected"));
    }
    Response response;
    if (failure_) {
      response = structured_error(*failure_);
    } else {
      body_ += "],\"bookmark\":\"";
      body_ += outcome.bookmark.text();
      body_ += "\"}\n";
      response.body = std::move(body_);
    }
    response.headers += answer_headers(service_, name_, outcome.bookmark);
    return response;
  }

  void run_transaction(database::Session& session) {
    control(session, "BEGIN");
    for (std::size_t i = 0; i < query_.statements.size() && !failure_ && !session.lost(); ++i) {
      run_statement(session, i);
    }
    if (!failure_ && !session.lost()) control(session, "COMMIT");
    if (!failure_ || session.lost() || session.autocommit()) return;
    std::optional<Error> first = std::move(failure_);
    control(session, "ROLLBACK");
    failure_ = std::move(first);
  }

  void control(database::Session& session, const char* sql) {
    database::SqlStatement statement;
    statement.sql = sql;
    database::DropRows rows;
    if (auto result = session.execute(statement, rows); !result)
      failure_ = std::move(result).error();
  }

  void run_statement(database::Session& session, std::size_t index) {
    body_ += index == 0 ? "{" : ",{";
    PlainRows rows(body_, service_.options.response_bytes_max);
    Result<database::StatementResult> result = session.execute(query_.statements[index], rows);
    if (!result) {
      failure_ = std::move(result).error();
      return;
    }
    rows.close();
    body_ += ",\"changes\":";
    append_integer(body_, result->changes);
    body_ += ",\"last_insert_rowid\":";
    append_integer(body_, result->last_insert_rowid);
    body_ += '}';
  }

  const Query query_;
  bool read_only_ = true;
  std::string body_;
  std::optional<Error> failure_;
};

// Whatever it names, a moment or a database. Objects belong to no database.
bool may_take(const Access& access, const std::string& other) {
  if (archive::NamedObjects::is_url(other)) return access.allows_everywhere(database::Verb::kAdmin);
  auto name = database::DatabaseName::parse(other);
  return !name || access.allows(*name, database::Verb::kSnapshot);
}

// The address was looked at, but they name another database.
Result<> check_ha_words(const Access& access, const HaWords& words) {
  auto administers = [&](const std::optional<HaWords::Copy>& copy) {
    return !copy ||
           (access.allows(copy->name, database::Verb::kAdmin) &&
            (!archive::NamedObjects::is_url(copy->other) || may_take(access, copy->other)));
  };
  if ((!words.use || access.allows_sql(*words.use)) &&
      (!words.create || access.allows(*words.create, database::Verb::kAdmin)) &&
      administers(words.snapshot) && administers(words.restore) &&
      (!words.restore || may_take(access, words.restore->other))) {
    return {};
  }
  return fail(Code::kForbidden, "TOKEN_FORBIDS: the token does not allow this on database '" +
                                    (words.use        ? *words.use
                                     : words.create   ? *words.create
                                     : words.snapshot ? words.snapshot->name
                                                      : words.restore->name)
                                        .text() +
                                    "'");
}

// The answer of a statement without rows.
Response without_rows(const Service& service, const database::DatabaseName& name,
                      const Bookmark& bookmark) {
  Response response;
  response.headers = answer_headers(service, name, bookmark);
  response.body = R"({"results":[{"columns":[],"rows":[],"changes":0,"last_insert_rowid":0}],)"
                  "\"bookmark\":\"" +
                  bookmark.text() + "\"}\n";
  return response;
}

// HA CREATE DB.
void create_and_answer(Service& service, const database::DatabaseName& name, Responder responder) {
  respond_from_helper(service, std::move(responder), [&service, name] {
    Result<database::DatabaseInfo> created = service.store.create(name, {});
    if (!created) return structured_error(created.error());
    return without_rows(service, name, created->bookmark);
  });
}

Result<archive::NamedObjects*> named_objects(const Service& service) {
  if (service.objects == nullptr) {
    return fail(Code::kForbidden,
                "OBJECTS_NOT_ALLOWED: this server was started without --objects URL");
  }
  return service.objects;
}

// HA SNAPSHOT name TO tag, or to an object's URL.
void tag_and_answer(Service& service, const HaWords::Copy& copy, Responder responder) {
  respond_from_job(
      service, "tag", copy.name, std::move(responder), [&service, copy]() -> Result<Response> {
        OFFPRINT_TRY_ASSIGN(auto state, service.store.snapshot(copy.name));
        if (archive::NamedObjects::is_url(copy.other)) {
          OFFPRINT_TRY_ASSIGN(auto objects, named_objects(service));
          OFFPRINT_TRY(objects->put(copy.other, *state));
          return without_rows(service, copy.name, state->position().bookmark());
        }
        OFFPRINT_TRY_ASSIGN(auto tag, service.store.add_tag(copy.name, copy.other, *state));
        return without_rows(service, copy.name, tag.bookmark);
      });
}

// HA RESTORE name FROM an object: a new database, or what one becomes.
Result<Bookmark> restore_object(Service& service, const HaWords::Copy& copy) {
  OFFPRINT_TRY_ASSIGN(auto objects, named_objects(service));
  OFFPRINT_TRY_ASSIGN(auto fetched, objects->get(copy.other));
  auto info = service.store.info(copy.name);
  if (!info && info.error().code() != Code::kNotFound) return fail(info.error());
  if (!info || info->bookmark.txid.value == 0)
    return service.store.import_file(copy.name, fetched->path());
  OFFPRINT_TRY_ASSIGN(auto state, fetched->state(info->page_size));
  return service.store.rewrite(copy.name, *state);
}

// HA RESTORE name FROM what has that name: a tag of it, a moment, a database, or an object's URL.
void restore_and_answer(Service& service, const HaWords::Copy& copy, Responder responder) {
  auto make = [&service, copy]() -> Result<Response> {
    database::Store& store = service.store;
    if (archive::NamedObjects::is_url(copy.other)) {
      OFFPRINT_TRY_ASSIGN(Bookmark bookmark, restore_object(service, copy));
      return without_rows(service, copy.name, bookmark);
    }
    auto moment = parse_moment(copy.other);
    if (!moment && store.bookmark_of(copy.name, database::Tag{copy.other}))
      moment = database::Tag{copy.other};
    auto state = [&]() -> Result<std::unique_ptr<database::Snapshot>> {
      if (moment) return store.snapshot_at(copy.name, *moment);
      OFFPRINT_TRY_ASSIGN(auto other, database::DatabaseName::parse(copy.other));
      return store.snapshot(other);
    }();
    if (!state) return fail(std::move(state).error());
    OFFPRINT_TRY_ASSIGN(Bookmark bookmark, store.rewrite(copy.name, **state));
    return without_rows(service, copy.name, bookmark);
  };
  respond_from_job(service, "restore", copy.name, std::move(responder), std::move(make));
}

}  // namespace

Result<database::SqlStatement> parse_statement_object(dom::object object) {
  database::SqlStatement statement;
  OFFPRINT_TRY_ASSIGN(auto sql, json_string_field(object, "sql"));
  if (!sql) return fail(Code::kInvalid, "'sql' is missing");
  statement.sql = *sql;
  auto args = json_field(object, "args");
  if (!args) return statement;
  dom::array list;
  dom::object named;
  if (args->get(list) == simdjson::SUCCESS) {
    for (dom::element arg : list) {
      OFFPRINT_TRY_ASSIGN(auto value, parse_argument(arg));
      statement.args.push_back(std::move(value));
    }
  } else if (args->get(named) == simdjson::SUCCESS) {
    for (auto field : named) {
      OFFPRINT_TRY_ASSIGN(auto value, parse_argument(field.value));
      statement.named_args.push_back({std::string(field.key), std::move(value)});
    }
  } else {
    return fail(Code::kInvalid, "ARGS_INVALID: 'args' is an array or an object");
  }
  return statement;
}

Result<Query> parse_query(std::string& body) {
  JsonReader reader;
  OFFPRINT_TRY_ASSIGN(dom::element root, reader.parse(body));
  Query query;
  dom::array list;
  if (root.get(list) != simdjson::SUCCESS) {
    OFFPRINT_TRY_ASSIGN(auto statement, parse_statement(root));
    query.statements.push_back(std::move(statement));
    return query;
  }
  query.is_array = true;
  for (dom::element element : list) {
    OFFPRINT_TRY_ASSIGN(auto statement, parse_statement(element));
    if (controls_transaction(statement.sql)) {
      return fail(Code::kInvalid,
                  "an array of statements is one transaction already: leave out BEGIN, COMMIT and "
                  "ROLLBACK");
    }
    query.statements.push_back(std::move(statement));
  }
  return query;
}

void handle_query(Service& service, const database::DatabaseName& name, HttpRequest& request,
                  Responder responder) {
  Result<Query> query = parse_query(request.body);
  if (!query) return responder.respond(structured_error(query.error()));
  Result<HaWords> words = take_ha_words(*query);
  if (!words) return responder.respond(structured_error(words.error()));
  const database::DatabaseName target = words->use.value_or(name);
  if (Result<> allowed = check_ha_words(access_of(service, request), *words); !allowed)
    return responder.respond(structured_error(allowed.error()));
  if (words->create) return create_and_answer(service, *words->create, std::move(responder));
  if (words->snapshot) return tag_and_answer(service, *words->snapshot, std::move(responder));
  if (words->restore) return restore_and_answer(service, *words->restore, std::move(responder));
  Result<ReadMode> mode = read_mode(service, target, request);
  if (!mode) return responder.respond(structured_error(mode.error()));
  auto key = request_key(request);
  if (!key) return responder.respond(structured_error(key.error()));
  auto work =
      std::make_unique<QueryRequest>(service, target, *std::move(query), std::move(responder));
  work->deadline = service.deadline();
  work->key = *std::move(key);
  mode->apply(*work);
  service.store.submit(target, std::move(work));
}

}  // namespace offprint::server
