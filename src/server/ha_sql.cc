#include "server/ha_sql.h"

#include <fmt/format.h>

#include "database/sql_text.h"

namespace offprint::server {
namespace {

using database::equals_ignoring_case;
using database::first_word;
using database::skip_blanks;

// Takes the next word off the text, when it is this one.
bool take(std::string_view& text, std::string_view upper_case) {
  std::string_view rest = skip_blanks(text);
  std::string_view word = first_word(rest);
  if (!equals_ignoring_case(word, upper_case)) return false;
  text = rest.substr(word.size());
  return true;
}

// What stands next: as it is, quoted, or the statement's first argument.
Result<std::string> take_text(std::string_view& text, database::SqlStatement& statement) {
  text = text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.starts_with('?')) {
    text.remove_prefix(1);
    auto* name = statement.args.empty() ? nullptr : std::get_if<std::string>(&statement.args[0]);
    if (name == nullptr)
      return fail(Code::kInvalid, "ARGS_INVALID: each ? stands for a text among the arguments");
    std::string taken = *name;
    statement.args.erase(statement.args.begin());
    return taken;
  }
  std::size_t end;
  std::string_view name;
  if (text.starts_with('\'') || text.starts_with('"')) {
    end = text.find(text[0], 1);
    if (end == std::string_view::npos) return fail(Code::kInvalid, "the name's quote never ends");
    name = text.substr(1, end - 1);
    ++end;
  } else {
    end = std::min(text.find_first_of("; \t\r\n"), text.size());
    name = text.substr(0, end);
  }
  text.remove_prefix(end);
  return std::string(name);
}

Result<database::DatabaseName> take_name(std::string_view& text,
                                         database::SqlStatement& statement) {
  OFFPRINT_TRY_ASSIGN(std::string name, take_text(text, statement));
  return database::DatabaseName::parse(name);
}

// What stands behind the name: nothing, or a semicolon and more.
Result<> take_semicolon(std::string_view& text) {
  text = text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (!text.empty() && text[0] != ';')
    return fail(Code::kInvalid, "behind the database's name stands a semicolon, or nothing");
  text = skip_blanks(text);
  return {};
}

// CREATE DB name, SNAPSHOT name TO tag, RESTORE name FROM other.
Result<> take_command(std::string_view& text, database::SqlStatement& statement, HaWords& words) {
  if (take(text, "CREATE") && (take(text, "DB") || take(text, "DATABASE"))) {
    OFFPRINT_TRY_ASSIGN(words.create, take_name(text, statement));
    return {};
  }
  const bool snapshots = take(text, "SNAPSHOT");
  if (!snapshots && !take(text, "RESTORE")) {
    return fail(Code::kInvalid,
                "after HA stands USE name; CREATE DB name; SNAPSHOT name TO tag; or RESTORE name "
                "FROM tag, moment or database");
  }
  OFFPRINT_TRY_ASSIGN(auto name, take_name(text, statement));
  if (!take(text, snapshots ? "TO" : "FROM"))
    return fail(Code::kInvalid, snapshots ? "TO is missing" : "FROM is missing");
  OFFPRINT_TRY_ASSIGN(std::string other, take_text(text, statement));
  (snapshots ? words.snapshot : words.restore) = HaWords::Copy{std::move(name), std::move(other)};
  return {};
}

}  // namespace

Result<HaWords> take_ha_words(Query& query) {
  HaWords words;
  for (std::size_t i = 0; i < query.statements.size(); ++i) {
    database::SqlStatement& statement = query.statements[i];
    std::string_view text = statement.sql;
    if (!take(text, "HA")) continue;
    if (i > 0) return fail(Code::kInvalid, "HA USE can only be the beginning of a request");
    if (take(text, "USE")) {
      OFFPRINT_TRY_ASSIGN(words.use, take_name(text, statement));
      OFFPRINT_TRY(take_semicolon(text));
      if (text.empty() && query.statements.size() == 1) {
        return fail(Code::kInvalid,
                    fmt::format("a request knows nothing of the one before: write HA USE {}; and "
                                "the statement behind it",
                                words.use->text()));
      }
      std::string rest(text);
      statement.sql = std::move(rest);
      if (!statement.sql.empty()) continue;
      if (!statement.args.empty())
        return fail(Code::kInvalid, "ARGS_INVALID: arguments without a statement");
      query.statements.erase(query.statements.begin());
      return words;
    }
    OFFPRINT_TRY(take_command(text, statement, words));
    OFFPRINT_TRY(take_semicolon(text));
    if (!text.empty() || query.statements.size() > 1 || !statement.args.empty())
      return fail(Code::kInvalid, "such an HA statement stands alone in a request");
    query.statements.clear();
  }
  return words;
}

}  // namespace offprint::server
