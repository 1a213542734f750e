#include "publication/contract_ignore.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "publication/sql_tokens.h"

namespace offprint::publication {
namespace {

constexpr std::string_view kMarker = "contract:ignore";

bool is_day(const std::string& text) {
  return text.size() == 10 && parse_rfc3339(text + "T00:00:00Z").has_value();
}

// What stands behind the marker of a comment.
std::optional<IgnoreText> parse_comment(std::string_view comment) {
  const std::size_t marker = comment.find(kMarker);
  if (marker == std::string_view::npos) return std::nullopt;
  std::string_view rest = comment.substr(marker + kMarker.size());
  if (rest.ends_with("*/")) rest.remove_suffix(2);
  IgnoreText ignore;
  auto take_blanks = [&] {
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
  };
  for (take_blanks(); !rest.empty(); take_blanks()) {
    std::size_t end = rest.find_first_of(" \t\r\n=");
    const std::string_view word = rest.substr(0, end);
    const bool has_value = end != std::string_view::npos && rest[end] == '=';
    rest.remove_prefix(std::min(end, rest.size()));
    if (!has_value) {
      if (ignore.rule.empty()) ignore.rule = word;
      continue;
    }
    rest.remove_prefix(1);
    const bool is_quoted = rest.starts_with('"');
    if (is_quoted) rest.remove_prefix(1);
    end = std::min(is_quoted ? rest.find('"') : rest.find_first_of(" \t\r\n"), rest.size());
    std::string value(rest.substr(0, end));
    rest.remove_prefix(std::min(is_quoted ? end + 1 : end, rest.size()));
    if (word == "until")
      ignore.until = std::move(value);
    else if (word == "reason")
      ignore.reason = std::move(value);
    else if (word == "object")
      ignore.object = std::move(value);
  }
  return ignore;
}

// The table, view or trigger that a statement is about; empty: none.
std::string object_of(std::string_view sql) {
  const Tokens tokens = tokenize(sql);
  auto name_behind = [&](std::size_t at) -> std::string {
    while (at < tokens.size() &&
           (tokens[at].is_word("IF") || tokens[at].is_word("NOT") || tokens[at].is_word("EXISTS")))
      ++at;
    if (at + 2 < tokens.size() && tokens[at + 1].is_operator(".")) at += 2;
    return at < tokens.size() ? folded(tokens[at].name()) : "";
  };
  for (std::size_t i = 1; i < std::min<std::size_t>(tokens.size(), 5); ++i) {
    for (std::string_view kind : {"TABLE", "VIEW", "TRIGGER"}) {
      if (tokens[i].is_word(kind)) return name_behind(i + 1);
    }
    if (!tokens[i].is_word("INDEX")) continue;
    for (std::size_t k = i + 1; k < tokens.size(); ++k) {
      if (tokens[k].is_word("ON")) return name_behind(k + 1);
    }
  }
  return "";
}

class Reader {
 public:
  explicit Reader(Findings& findings) : findings_(findings) {}

  void take(const IgnoreText& text, const std::string& label, std::optional<Place> place,
            const std::string& object, bool needs_object) {
    const Rule* rule = find_rule(text.rule);
    std::string wrong;
    if (rule == nullptr) {
      wrong = text.rule.empty() ? "names no rule" : fmt::format("{} is no rule", text.rule);
    } else if (rule->category == Category::kContract) {
      wrong = fmt::format("{} cannot be ignored", text.rule);
    } else if (!is_day(text.until)) {
      wrong = "needs until=YYYY-MM-DD";
    } else if (text.reason.empty()) {
      wrong = "needs reason=\"…\"";
    } else if (needs_object && text.object.empty() && object.empty()) {
      wrong = "stands at no statement: object=NAME says what it is about";
    }
    if (!wrong.empty()) {
      findings_.add("IGNORE_INVALID", label, {"", "", "", place},
                    fmt::format("contract:ignore {}", wrong));
      return;
    }
    list_.push_back(
        {rule, text.until, text.object.empty() ? object : folded(text.object), label, place});
  }

  std::vector<Ignore> finish() { return std::move(list_); }

 private:
  Findings& findings_;
  std::vector<Ignore> list_;
};

bool covers(const Ignore& ignore, const Finding& finding) {
  if (ignore.rule != finding.rule) return false;
  return ignore.object.empty() || finding.object == ignore.object ||
         finding.object.starts_with(ignore.object + ".");
}

}  // namespace

std::vector<Ignore> read_ignores(const SchemaScript& script, const std::vector<Contract>& contracts,
                                 Findings& findings) {
  Reader reader(findings);
  auto take = [&](const ScriptComment& comment, const std::string& object) {
    const auto place = script.has_lines ? std::optional(comment.place) : std::nullopt;
    if (auto text = parse_comment(comment.text))
      reader.take(*text, script.label, place, object, true);
  };
  for (const SchemaStatement& statement : script.statements) {
    if (statement.comments.empty()) continue;
    const std::string object = object_of(statement.sql);
    for (const ScriptComment& comment : statement.comments) take(comment, object);
  }
  for (const ScriptComment& comment : script.last_comments) take(comment, "");
  for (const Contract& contract : contracts) {
    for (const IgnoreText& text : contract.ignores)
      reader.take(text, contract.file, std::nullopt, "", false);
  }
  return reader.finish();
}

int apply_ignores(std::vector<Ignore> ignores, const std::string& today, Findings& findings) {
  const auto taken = std::erase_if(findings.list(), [&](const Finding& finding) {
    bool is_ignored = false;
    for (Ignore& ignore : ignores) {
      if (!covers(ignore, finding)) continue;
      ignore.is_used = true;
      is_ignored = is_ignored || today <= ignore.until;
    }
    return is_ignored;
  });
  for (const Ignore& ignore : ignores) {
    const std::string object = ignore.object.empty() ? "" : " of " + ignore.object;
    if (today > ignore.until) {
      findings.add(
          "IGNORE_EXPIRED", ignore.label, {ignore.object, "", "", ignore.place},
          fmt::format("the ignore of {}{} ended on {}", ignore.rule->id, object, ignore.until));
    } else if (!ignore.is_used) {
      findings.add("IGNORE_UNUSED", ignore.label, {ignore.object, "", "", ignore.place},
                   fmt::format("nothing needs the ignore of {}{}", ignore.rule->id, object));
    }
  }
  return static_cast<int>(taken);
}

}  // namespace offprint::publication
