#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What somebody may do with a database. docs/protocol/tokens.md.
namespace offprint::database {

enum class Verb : std::uint32_t {
  kDataRead = 1 << 0,
  kDataAdd = 1 << 1,
  kDataUpdate = 1 << 2,
  kDataDelete = 1 << 3,
  kSchemaAdd = 1 << 4,
  kSchemaUpdate = 1 << 5,
  kSchemaDelete = 1 << 6,
  kSubscribe = 1 << 7,  // streams
  kSnapshot = 1 << 8,   // downloads of whole files
  kAdmin = 1 << 9,      // databases are made, filled and dropped
  kMetrics = 1 << 10,   // of the node
  kPublish = 1 << 11,   // this one and the following are names that nothing asks for yet
  kMigrate = 1 << 12,
  kSplit = 1 << 13,
  kSagaStart = 1 << 14,
};

// A set of verbs.
class Verbs {
 public:
  constexpr Verbs() = default;
  constexpr Verbs(Verb verb) : bits_(static_cast<std::uint32_t>(verb)) {}  // NOLINT: one is a set
  constexpr bool has(Verbs all) const { return (bits_ & all.bits_) == all.bits_; }
  constexpr bool has_any(Verbs some) const { return (bits_ & some.bits_) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr Verbs operator|(Verbs other) const { return Verbs(bits_ | other.bits_); }
  constexpr Verbs operator&(Verbs other) const { return Verbs(bits_ & other.bits_); }
  constexpr Verbs without(Verbs other) const { return Verbs(bits_ & ~other.bits_); }
  constexpr Verbs& operator|=(Verbs other) { return *this = *this | other; }
  constexpr bool operator==(const Verbs&) const = default;

  // "data_read"; nothing for a word that is no verb.
  static std::optional<Verbs> parse(std::string_view name);
  std::vector<std::string_view> names() const;

 private:
  explicit constexpr Verbs(std::uint32_t bits) : bits_(bits) {}
  std::uint32_t bits_ = 0;
};

constexpr Verbs operator|(Verb a, Verb b) { return Verbs(a) | Verbs(b); }

inline constexpr Verbs kDataWrites = Verb::kDataAdd | Verb::kDataUpdate | Verb::kDataDelete;
inline constexpr Verbs kSchemaWrites = Verb::kSchemaAdd | Verb::kSchemaUpdate | Verb::kSchemaDelete;
// What SQL can do, and all that a token can name for one table.
inline constexpr Verbs kSqlVerbs = kDataWrites | kSchemaWrites | Verb::kDataRead;

// What a request's SQL may do with one database.
struct SqlRights {
  Verbs everywhere;
  // On single tables, besides `everywhere`; the names in lower case.
  std::map<std::string, Verbs, std::less<>> tables;
  Verbs other_tables;  // on those that are not named

  bool is_everything() const { return everywhere.has(kSqlVerbs); }
  // The authorizer alone tells what a statement does to the whole database, except that what is
  // read may escape it (docs/protocol/tokens.md, "How SQL is checked").
  bool needs_reach() const { return !everywhere.has(Verb::kDataRead); }
  bool has_table_rules() const { return !tables.empty() || !other_tables.empty(); }
  Verbs on_table(std::string_view name_lower) const;
};

}  // namespace offprint::database
