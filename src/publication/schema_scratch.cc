#include "publication/schema_scratch.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "publication/schema_stand_in.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

// More of these in one statement mean that a stand-in does not help.
constexpr int kMissingMax = 50;

struct Made {
  std::vector<std::string> objects;  // folded
};

// Takes down what a statement makes or alters.
int watch(void* context, int action, const char* first, const char* second, const char*,
          const char*) {
  auto& made = *static_cast<Made*>(context);
  switch (action) {
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
      return SQLITE_DENY;
    case SQLITE_CREATE_TABLE:
    case SQLITE_CREATE_VTABLE:
    case SQLITE_CREATE_VIEW:
    case SQLITE_CREATE_INDEX:
    case SQLITE_CREATE_TRIGGER:
      if (first != nullptr) made.objects.push_back(folded(first));
      break;
    case SQLITE_ALTER_TABLE:
      if (second != nullptr) made.objects.push_back(folded(second));
      break;
    default:
      break;
  }
  return SQLITE_OK;
}

// CREATE VIRTUAL TABLE with another module.
std::string with_stand_in_module(std::string_view sql) {
  const Tokens tokens = tokenize(sql);
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (!tokens[i].is_word("USING")) continue;
    const Token& module = tokens[i + 1];
    return fmt::format("{}{}{}", sql.substr(0, module.offset), kStandInModule,
                       sql.substr(module.offset + module.text.size()));
  }
  return std::string(sql);
}

}  // namespace

Result<std::unique_ptr<ScratchDatabase>> ScratchDatabase::create(const SchemaScript& script) {
  sqlite::Connection::Options options;
  options.create = true;
  OFFPRINT_TRY_ASSIGN(auto db, sqlite::Connection::open(":memory:", options));
  sqlite3_db_config(db.handle(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_limit(db.handle(), SQLITE_LIMIT_ATTACHED, 0);  // no files, by VACUUM INTO neither
  OFFPRINT_TRY(db.execute("PRAGMA temp_store = 2; PRAGMA foreign_keys = OFF"));
  if (add_stand_in_module(db.handle(), kStandInModule) != SQLITE_OK)
    return fail(Code::kInternal, "no stand-in for modules");
  std::unique_ptr<ScratchDatabase> scratch(new ScratchDatabase(script, std::move(db)));
  OFFPRINT_TRY(scratch->run_script());
  OFFPRINT_TRY_ASSIGN(scratch->schema_, read_schema(scratch->db_));
  return scratch;
}

Result<> ScratchDatabase::run_script() {
  for (std::size_t number = 0; number < script_.statements.size(); ++number) {
    Made made;
    sqlite3_set_authorizer(db_.handle(), watch, &made);
    Result<> done = run_statement(number);
    sqlite3_set_authorizer(db_.handle(), nullptr, nullptr);
    if (!done) {
      const Place place = script_.statements[number].place;
      return fail(done.error().with_context(
          script_.has_lines ? fmt::format("{}:{}:{}", script_.label, place.line, place.column)
                            : script_.label));
    }
    std::ranges::sort(made.objects);
    for (std::size_t i = 0; i < made.objects.size(); ++i) {
      if (i > 0 && made.objects[i] == made.objects[i - 1]) continue;
      std::vector<std::size_t>& statements = made_by_[made.objects[i]];
      statements.push_back(number);
    }
    for (MissingExtension& missing : missing_) {
      if (missing.used_by.empty() && !made.objects.empty()) missing.used_by = made.objects.front();
    }
  }
  if (db_.autocommit()) return {};
  return db_.execute("COMMIT");
}

Result<> ScratchDatabase::run_statement(std::size_t number) {
  const std::string& sql = script_.statements[number].sql;
  for (int i = 0;; ++i) {
    Result<> done = db_.execute(sql.c_str());
    if (done) return {};
    constexpr std::string_view kTokenizer = "no such tokenizer: ";
    if (done.error().message().starts_with(kTokenizer)) {
      missing_.push_back({"tokenizer", done.error().message().substr(kTokenizer.size()), ""});
      return db_.execute(with_stand_in_module(sql).c_str());
    }
    if (i == kMissingMax || !replace_missing(done.error(), "")) return done;
  }
}

bool ScratchDatabase::replace_missing(const Error& error, const std::string& used_by) {
  struct Kind {
    const char* name;
    std::string_view message;
    int (*add)(sqlite3*, const std::string&);
  };
  static constexpr std::array kKinds = {
      Kind{"collation", "no such collation sequence: ", add_stand_in_collation},
      Kind{"function", "no such function: ", add_stand_in_function},
      Kind{"module", "no such module: ", add_stand_in_module},
  };
  for (const Kind& kind : kKinds) {
    const std::size_t found = error.message().find(kind.message);
    if (found == std::string::npos) continue;
    const std::string name = error.message().substr(found + kind.message.size());
    if (name.empty() || kind.add(db_.handle(), name) != SQLITE_OK) return false;
    missing_.push_back({kind.name, name, used_by});
    return true;
  }
  return false;
}

Result<sqlite::Statement> ScratchDatabase::prepare(std::string_view sql,
                                                   const std::string& used_by) {
  for (int i = 0;; ++i) {
    auto statement = db_.prepare(sql);
    if (statement || i == kMissingMax || !replace_missing(statement.error(), used_by))
      return statement;
  }
}

const SchemaStatement* ScratchDatabase::statement_of(const std::string& object) const {
  auto found = made_by_.find(folded(object));
  if (found != made_by_.end()) return &script_.statements[found->second.front()];
  // Renamed, or made in a way that the authorizer does not tell: the last that names it.
  for (auto it = script_.statements.rbegin(); it != script_.statements.rend(); ++it) {
    for (const Token& token : tokenize(it->sql)) {
      if (token.is_name() && folded(token.name()) == folded(object)) return &*it;
    }
  }
  return nullptr;
}

std::optional<Place> ScratchDatabase::place_of(const std::string& object,
                                               const std::string& column) const {
  if (!script_.has_lines) return std::nullopt;
  if (auto found = made_by_.find(folded(object)); found != made_by_.end() && !column.empty()) {
    for (auto number = found->second.rbegin(); number != found->second.rend(); ++number) {
      const SchemaStatement& statement = script_.statements[*number];
      const Tokens tokens = tokenize(statement.sql);
      for (std::size_t i = 1; i < tokens.size(); ++i) {
        const Token& before = tokens[i - 1];
        const bool begins = before.is_operator("(") || before.is_operator(",") ||
                            before.is_word("COLUMN") || before.is_word("ADD") ||
                            before.is_word("TO");
        if (begins && tokens[i].is_name() && folded(tokens[i].name()) == folded(column))
          return script_.place_at(statement.offset + tokens[i].offset);
      }
    }
  }
  const SchemaStatement* statement = statement_of(object);
  return statement == nullptr ? std::nullopt : std::optional(statement->place);
}

}  // namespace offprint::publication
